"""The kernel's traffic control, set over netlink by pyroute2, in the network namespace of the calling process."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from socket import htons
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWTFILTER
from pyroute2.netlink.rtnl.tcmsg import cls_u32, tcmsg

from unit_agent.shaping.things import (
    AT_ROOT,
    FILTER_PREFERENCE,
    INGRESS_HANDLE,
    Class,
    Filter,
    Qdisc,
    Thing,
)
from unitfleet.errors import DriverError

EVERY_PROTOCOL = 0x0003  # ETH_P_ALL
EVERY_PACKET = ("0x0/0x0+0",)
QUANTUM = 60_000
"""Bytes a class sends at its turn when it borrows: near the largest packet, and the same for all of them."""

_CREATE = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL


class Kernel:
    """An open netlink socket, and the indexes of the interfaces, which who holds them keeps true."""

    def __init__(self, route: AsyncIPRoute, indexes: Mapping[str, int]) -> None:
        self._route = route
        self._indexes = indexes

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, indexes: Mapping[str, int]) -> AsyncIterator[Kernel]:
        """Give a kernel that is told on a socket of its own. Raises `OSError`."""
        async with AsyncIPRoute(groups=0) as route:
            yield cls(route, indexes)

    async def put(self, thing: Thing, instead: Thing | None) -> None:
        """Make or change a thing. Raises `DriverError`."""
        with _told():
            await self._put(thing, instead)

    async def remove(self, thing: Thing) -> None:
        """Remove a thing; nothing there is fine. Raises `DriverError`."""
        with _told():
            await self._remove(thing)

    async def _put(self, thing: Thing, instead: Thing | None) -> None:
        match thing:
            case Qdisc(device, "ingress"):
                with _settled(errno.EEXIST):
                    await self._route.tc("add", "ingress", self._index(device), INGRESS_HANDLE)
            case Qdisc(device, kind, number, default):
                await self._route.tc("replace", kind, self._index(device), number, default=default)
            case Class():
                await self._route.tc(
                    "add-class" if instead is None else "change-class",
                    "htb",
                    self._index(thing.device),
                    thing.handle,
                    parent=thing.handle & 0xFFFF0000 if thing.parent == AT_ROOT else thing.parent,
                    rate=thing.rate,
                    ceil=thing.ceil,
                    burst=thing.rate * (thing.burst_us + 0.5) / 1e6,
                    cburst=thing.ceil * (thing.ceil_burst_us + 0.5) / 1e6,
                    prio=thing.priority,
                    quantum=QUANTUM,
                )
            case Filter():
                await self._add_filter(thing)

    async def _remove(self, thing: Thing) -> None:
        with _settled(errno.ENOENT, errno.ENODEV, errno.EINVAL if isinstance(thing, Qdisc) else errno.ENOENT):
            match thing:
                case Qdisc(device, kind, number) if device in self._indexes:
                    parent = 0xFFFFFFF1 if kind == "ingress" else AT_ROOT
                    await self._route.tc("del", kind, self._index(device), number, parent=parent)
                case Class(device, number, parent) if device in self._indexes:
                    # pyroute2 can't write the message without a rate
                    await self._route.tc(
                        "del-class", "htb", self._index(device), number, parent=parent, rate=thing.rate
                    )
                case Filter(device, parent) if device in self._indexes:
                    await self._route.tc(
                        "del-filter",
                        "u32",
                        self._index(device),
                        thing.number,
                        parent=parent,
                        prio=FILTER_PREFERENCE,
                        protocol=EVERY_PROTOCOL,
                        target=0,
                        keys=[],
                    )

    async def _add_filter(self, thing: Filter) -> None:
        said: dict[str, Any] = {"target": thing.target, "keys": EVERY_PACKET}
        if thing.redirect:
            there = self._index(thing.redirect)
            said["action"] = [{"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": there}]
        options = cls_u32.get_parameters(said)
        if thing.source:
            # pyroute2 has no word for it: u32 matches the interface that a packet came by, which nobody can forge
            options["attrs"].append(["TCA_U32_INDEV", thing.source.encode() + b"\0"])
        message = tcmsg()
        message["index"], message["parent"] = self._index(thing.device), thing.parent
        message["info"] = htons(EVERY_PROTOCOL) | FILTER_PREFERENCE << 16
        message["attrs"] = [["TCA_KIND", "u32"], ["TCA_OPTIONS", options]]
        answers = await self._route.nlm_request(message, msg_type=RTM_NEWTFILTER, msg_flags=_CREATE)
        async for _ in answers:
            pass

    def _index(self, name: str) -> int:
        index = self._indexes.get(name)
        if index is None:
            raise NetlinkError(errno.ENODEV, os.strerror(errno.ENODEV))
        return index


@contextlib.contextmanager
def _settled(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn the kernel's refusal into one of ours, in words."""
    try:
        yield
    except NetlinkError as error:
        raise DriverError(os.strerror(error.code).lower()) from error
