"""Renewals of leases on streams that are kept open: most of what an idle agent costs is to renew its lease.

A stream that was answered is used again; on one that was not, a late answer would be taken for the next one's.
"""

from __future__ import annotations

import asyncio
import contextlib

from unitfleet.etcd.endpoint import Endpoint, Failure, Stream
from unitfleet.etcd.messages import KEEPALIVE, LeaseKeepAliveRequest


class Renewals:
    """The streams of one client to one member: as many as there are renewals at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[tuple[Stream, contextlib.ExitStack]] = []

    async def renew(self, lease_id: int, within_s: float) -> float:
        """Renew a lease and return its remaining seconds, 0 when it is gone; raises `Failure`."""
        stream, closing = self._taken()
        try:
            async with asyncio.timeout(within_s):
                await stream.write(LeaseKeepAliveRequest(ID=lease_id))
                answer = await stream.read()
        except TimeoutError:
            closing.close()
            raise Failure(f"no answer within {within_s:.1f} s", maybe_done=True) from None
        except BaseException:
            closing.close()
            raise
        self._idle.append((stream, closing))
        return float(answer.TTL)

    def _taken(self) -> tuple[Stream, contextlib.ExitStack]:
        while self._idle:
            stream, closing = self._idle.pop()
            if not stream.is_over:
                return stream, closing
            closing.close()
        with contextlib.ExitStack() as opening:
            stream = opening.enter_context(self._endpoint.stream(KEEPALIVE, LeaseKeepAliveRequest))
            return stream, opening.pop_all()
