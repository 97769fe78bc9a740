"""Ask another master what it alone has, with the cluster's key, or by TLS with this master's certificate."""

from __future__ import annotations

from typing import Any, TypeVar

import aiohttp
import msgspec

from unitfleet import foreign
from unitfleet.api import ErrorBody
from unitfleet.model import MasterRecord

T = TypeVar("T")

CONNECT_S = 3.0
ANSWER_S = 30.0

_TIMEOUT = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)


class NoAnswer(Exception):
    """No address of a master gave an answer; the message says why."""


class Peers:
    """Speaks to masters, by TCP; with `tls` only to those by https."""

    def __init__(self, session: aiohttp.ClientSession, cluster_key: str, *, tls: bool = False) -> None:
        self._session = session
        self._scheme = "https://" if tls else "http"
        self._headers = {"Content-Type": "application/json"}
        if not tls:
            self._headers["Authorization"] = f"Bearer {cluster_key}"

    async def ask(self, master: MasterRecord, path: str, question: Any, kind: type[T]) -> T | ErrorBody:
        """Return the answer of the first address that gives one, or its refusal; raises `NoAnswer`."""
        why = "it names no address"
        for address in master.api:
            if not address.startswith(self._scheme):
                continue
            try:
                async with self._session.post(
                    f"{address}{path}",
                    data=msgspec.json.encode(question),
                    headers=self._headers,
                    timeout=_TIMEOUT,
                ) as answer:
                    raw = await answer.read()
                    if answer.status == 200:
                        return foreign.decode(raw, kind)
                    return foreign.decode(raw, ErrorBody)
            except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
                why = str(error) or "no answer in time"
        raise NoAnswer(why)
