"""`EtcdStore`: the store on a real etcd."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from unitfleet.errors import Compacted, LeaseLost, StoreError
from unitfleet.etcd.endpoint import PROBE_EVERY_S, Endpoint, Failure, RevisionCompacted, TlsSource
from unitfleet.etcd.members import Members, Repeat
from unitfleet.etcd.messages import (
    COMPACT,
    DELETE_RANGE,
    GRANT,
    PUT,
    RANGE,
    REVOKE,
    STATUS,
    TXN,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    Method,
    PutRequest,
    RangeRequest,
    StatusRequest,
    TxnRequest,
    first_key,
    from_compare,
    from_operation,
    range_end,
    to_key_value,
)
from unitfleet.etcd.watch import watch
from unitfleet.store import Batch, Compare, KeyValue, Lease, Listing, MemberStatus, Op, StoreStatus, TxnResult

_MEMBER_S = 1.0  # to connect to one member, and for its answer, when all are asked how they are


class EtcdStore:
    """A client of one etcd cluster; a `unitfleet.store.Store`.

    `endpoints` are `host:port` of the members, tried in this order. A call may take `timeout_s` seconds in all;
    a listing that long for each page of `page_size` keys. A member that is watched and says nothing for `probe_s`
    is asked for a sign of life, and left when none comes. Make it where its loop runs; `close` it at the end.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: TlsSource | None = None,
        timeout_s: float = 5.0,
        page_size: int = 1000,
        probe_s: float = PROBE_EVERY_S,
        rng: random.Random | None = None,
    ) -> None:
        self._members = Members(endpoints, tls, rng or random.Random(), probe_s)
        self._timeout_s = timeout_s
        self._page_size = page_size

    async def get(self, key: str) -> KeyValue | None:
        """Return the key as it is now, or None."""
        answer = await self._call(RANGE, RangeRequest(key=key.encode()))
        return to_key_value(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Return every key under `prefix` as of one revision (0: now), paged inside. Raises `Compacted`.

        etcd doesn't say up to where it was compacted, so the error names the least it can be.
        """
        first, end, at = first_key(prefix), range_end(prefix), revision
        items: list[KeyValue] = []
        while True:
            page = RangeRequest(key=first, range_end=end, limit=self._page_size, revision=at)
            try:
                answer = await self._call(RANGE, page)
            except RevisionCompacted:
                if not revision:  # compacted between two pages of a listing of now: there is a newer now
                    return await self.list(prefix)
                raise Compacted(revision + 1) from None
            at = at or answer.header.revision
            items.extend(map(to_key_value, answer.kvs))
            if not answer.more:
                return Listing(at, tuple(items))
            first = answer.kvs[-1].key + b"\0"

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        """Do `then` if every compare holds, else `otherwise`, atomically; never sent twice."""
        request = TxnRequest(
            compare=map(from_compare, compares),
            success=map(from_operation, then),
            failure=map(from_operation, otherwise),
        )
        answer = await self._call(TXN, request, Repeat.NEVER)
        return TxnResult(answer.succeeded, answer.header.revision)

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write a key and return the revision; never sent twice."""
        request = PutRequest(key=key.encode(), value=value, lease=lease)
        answer = await self._call(PUT, request, Repeat.NEVER)
        return int(answer.header.revision)

    async def delete(self, key: str) -> int:
        """Delete a key, present or not, and return the revision; never sent twice. A full store does it too."""
        answer = await self._call(DELETE_RANGE, DeleteRangeRequest(key=key.encode()), Repeat.NEVER)
        return int(answer.header.revision)

    def watch(self, prefix: str, *, start_revision: int) -> AsyncGenerator[Batch, None]:
        """Yield every change under `prefix` from `start_revision` on, a batch a revision; raises `Compacted`."""
        return watch(self._members, prefix, start_revision)

    async def grant(self, ttl_s: float, lease_id: int = 0) -> Lease:
        """Make a lease of at least `ttl_s` seconds, in whole seconds; `lease_id` 0 lets the store choose.

        Without an id it may be asked twice: a lease that nobody knows of ends by itself.
        """
        repeat = Repeat.NEVER if lease_id else Repeat.HARMLESS
        answer = await self._call(GRANT, LeaseGrantRequest(TTL=math.ceil(ttl_s), ID=lease_id), repeat)
        if answer.error:
            raise StoreError(f"cannot grant a lease: {answer.error}")
        return Lease(answer.ID, answer.TTL)

    async def keepalive(self, lease_id: int, timeout_s: float) -> float:
        """Renew a lease and return its remaining seconds; raises `LeaseLost` if it is gone.

        An endpoint that has not answered within `timeout_s` divided among the endpoints is left for the next.
        When none answers it raises `StoreUnavailable`, though one may have renewed the lease.
        """

        async def renew(endpoint: Endpoint, share_s: float) -> float:
            return await self._members.renewals(endpoint).renew(lease_id, share_s)

        left_s = await self._members.ask(renew, Repeat.READ, timeout_s)
        if left_s <= 0:
            raise LeaseLost(f"cannot renew lease {lease_id:x}: it expired or was revoked")
        return left_s

    async def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys; a lease that is gone already is fine."""
        try:
            await self._call(REVOKE, LeaseRevokeRequest(ID=lease_id), Repeat.HARMLESS)
        except LeaseLost:
            pass  # gone already

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`. Already compacted is fine."""
        try:
            await self._call(COMPACT, CompactionRequest(revision=revision), Repeat.HARMLESS)
        except RevisionCompacted:
            pass  # somebody was there before

    async def status(self) -> StoreStatus:
        """Say how the member asked at present is; one without a leader answers too."""

        async def ask(endpoint: Endpoint, share_s: float) -> Any:
            return await endpoint.call(STATUS, StatusRequest(), share_s, require_leader=False)

        answer = await self._members.ask(ask, Repeat.READ, self._timeout_s)
        return StoreStatus(answer.version, answer.dbSize, bool(answer.leader), f"{answer.header.cluster_id:x}")

    async def members(self) -> tuple[MemberStatus, ...]:
        """Ask every endpoint how it is; one that does not answer in time is told as such."""
        return tuple(await asyncio.gather(*(self._member(endpoint) for endpoint in self._members.all)))

    async def _member(self, endpoint: Endpoint) -> MemberStatus:
        try:
            await endpoint.connect(_MEMBER_S)
            answer = await endpoint.call(STATUS, StatusRequest(), _MEMBER_S, require_leader=False)
        except Failure as failure:
            return MemberStatus(endpoint.address, trouble=failure.reason)
        except StoreError as error:
            return MemberStatus(endpoint.address, trouble=str(error))
        return MemberStatus(
            endpoint.address,
            version=answer.version,
            db_size=answer.dbSize,
            quota=answer.dbSizeQuota,
            has_leader=bool(answer.leader),
            complaints=tuple(answer.errors),
        )

    async def close(self) -> None:
        """Give up connections; open watches end."""
        await self._members.close()

    async def _call(self, method: Method, request: Any, repeat: Repeat = Repeat.READ) -> Any:
        async def send(endpoint: Endpoint, share_s: float) -> Any:
            return await endpoint.call(method, request, share_s)

        return await self._members.ask(send, repeat, self._timeout_s)
