"""The kernel's interfaces and traffic control, read by hand from netlink dumps (rtnetlink(7)). Blocks.

pyroute2 decodes every attribute of every message into objects: for 100 containers that is 44 ms of a core each
time, for the few numbers that are looked at. Setting things is pyroute2's (`unit_agent.shaping.kernel`).
Everything is of the network namespace of the calling process.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

from unit_agent.shaping.seen import Counters, Link, Standing
from unit_agent.shaping.things import (
    AT_ROOT,
    FILTER_PREFERENCE,
    IN,
    INGRESS_HANDLE,
    OUT,
    TREES,
    Class,
    Filter,
    Ifb,
    Qdisc,
    Thing,
    handle_text,
)

TICKS_PER_US = 15.625
"""HTB writes bursts in ticks of 64 ns (PSCHED_SHIFT)."""

TIMEOUT_S = 5.0
_BUFFER = 1 << 17
_DONE, _ERROR = 3, 2
_GETLINK, _GETQDISC, _GETCLASS, _GETFILTER = 18, 38, 42, 46
_REQUEST_DUMP = 0x301
_OPTIONS = 2  # TCA_OPTIONS: the statistics, which nobody looks at here, come after it

_HEADER = struct.Struct("=IHHII")
_LINK, _TC = struct.Struct("=BxHiII"), struct.Struct("=B3xiIII")
_ATTRIBUTE = struct.Struct("=HH")
_HTB_CLASS = struct.Struct("=8xI8xIIIIII")  # rate, ceil, buffer, cbuffer, quantum, level, prio
_SKIP_STATISTICS = struct.pack("=HHI", 8, 29, 8)  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS

Attributes = dict[int, memoryview]


class Reader:
    """A netlink socket and the names of interfaces as of `links`. Calls raise `OSError` if it can't be asked."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._names: dict[int, str] = {}
        self._indexes: dict[str, int] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def links(self) -> dict[str, Link]:
        """Return the interfaces by name."""
        found = {}
        for body in self._dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + _SKIP_STATISTICS):
            index = _LINK.unpack_from(body)[2]
            said = attributes(body, _LINK.size)
            name = _word(said.get(3))
            kind = _word(attributes(said[18]).get(1)) if 18 in said else ""
            found[name] = Link(index, name, kind, _number(said.get(5)))
        self.know(found)
        return found

    def know(self, links: Mapping[str, Link]) -> None:
        """Take interfaces for those that there are, in place of `links`."""
        self._names = {link.index: link.name for link in links.values()}
        self._indexes = {link.name: link.index for link in links.values()}

    def qdiscs(self) -> dict[str, tuple[Qdisc, ...]]:
        """Return the root and ingress qdiscs of every interface; handle 0 is the kernel's own choice."""
        found: dict[str, tuple[Qdisc, ...]] = {}
        for body in self._dump(_GETQDISC, _TC.pack(0, 0, 0, 0, 0)):
            _, index, number, parent, _ = _TC.unpack_from(body)
            said = attributes(body, _TC.size, _OPTIONS)
            name, kind = self._names.get(index, ""), _word(said.get(1))
            if name and (parent == AT_ROOT or kind in ("ingress", "clsact")):
                default = 0
                if kind == "htb" and _OPTIONS in said:
                    default = struct.unpack_from("=III", attributes(said[_OPTIONS])[2])[2]
                found[name] = (*found.get(name, ()), Qdisc(name, kind, number, default))
        return found

    def standing(self, name: str, qdiscs: Sequence[Qdisc]) -> Standing:
        """Return what of ours stands on an interface with these qdiscs."""
        index = self._indexes[name]
        root = next((qdisc for qdisc in qdiscs if qdisc.kind not in ("ingress", "clsact")), None)
        things: list[Thing] = [Ifb(name)] if name in (OUT, IN) else []
        foreign = ""
        if root is not None and root.handle:
            if root.kind == "htb" and root.handle >> 16 in TREES:
                things += [root, *self._classes(name, index), *self._filters(name, index, root.handle)]
            else:
                foreign = f"{root.kind} {handle_text(root.handle)}"
        if any(qdisc.kind == "ingress" for qdisc in qdiscs):
            redirects = list(self._filters(name, index, INGRESS_HANDLE))
            if redirects:
                things += [Qdisc(name, "ingress", INGRESS_HANDLE), *redirects]
        return Standing(tuple(things), foreign)

    def counters(self, name: str) -> Mapping[int, Counters]:
        """Return the counters of every class of an interface, by handle; none for one that is gone."""
        found = {}
        if name in self._indexes:
            for body in self._dump(_GETCLASS, _TC.pack(0, self._indexes[name], 0, 0, 0)):
                stats = attributes(attributes(body, _TC.size).get(7, memoryview(b"")))
                if 1 in stats and 3 in stats:
                    _, backlog, drops = struct.unpack_from("=III", stats[3])
                    found[_TC.unpack_from(body)[2]] = Counters(
                        struct.unpack_from("=Q", stats[1])[0], drops, backlog
                    )
        return found

    def _classes(self, name: str, index: int) -> Iterator[Class]:
        for body in self._dump(_GETCLASS, _TC.pack(0, index, 0, 0, 0)):
            _, _, number, parent, _ = _TC.unpack_from(body)
            said = attributes(attributes(body, _TC.size, _OPTIONS).get(_OPTIONS, memoryview(b"")))
            if 1 in said:
                rate, ceil, buffer, ceil_buffer, _, _, priority = _HTB_CLASS.unpack_from(said[1])
                yield Class(
                    name,
                    number,
                    parent,
                    _number(said.get(6)) or rate,
                    _number(said.get(7)) or ceil,
                    round(buffer / TICKS_PER_US),
                    round(ceil_buffer / TICKS_PER_US),
                    priority,
                )

    def _filters(self, name: str, index: int, parent: int) -> Iterator[Filter]:
        for body in self._dump(_GETFILTER, _TC.pack(0, index, 0, parent, 0)):
            _, _, number, _, info = _TC.unpack_from(body)
            # the lines of a filter's hash tables carry no node number
            if info >> 16 == FILTER_PREFERENCE and number & 0xFFF:
                said = attributes(attributes(body, _TC.size, _OPTIONS).get(_OPTIONS, memoryview(b"")))
                yield Filter(
                    name, parent, _number(said.get(1)), _word(said.get(8)), self._redirect(said.get(7)), number
                )

    def _redirect(self, actions: memoryview | None) -> str:
        """Return where a filter sends packets: an interface, "" for on, "?" for one that is gone."""
        if not actions:
            return ""
        first = attributes(attributes(actions)[1])
        parms = attributes(first[2]).get(2)
        return self._names.get(struct.unpack_from("=24xI", parms)[0], "?") if parms else "?"

    def _dump(self, kind: int, body: bytes) -> Iterator[memoryview]:
        """Ask for a dump and give each message's content, all of it before the next request."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        found: list[memoryview] = []
        while True:
            raw = memoryview(self._socket.recv(_BUFFER))
            offset = 0
            while offset + _HEADER.size <= len(raw):
                length, what, _, sequence, _ = _HEADER.unpack_from(raw, offset)
                content = raw[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if what == _DONE:
                    return iter(found)
                if what == _ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise OSError(code, os.strerror(code))
                found.append(content)


def attributes(raw: memoryview, offset: int = 0, last: int = -1) -> Attributes:
    """Return the attributes of a message or of a nested attribute, by type; none that come after `last`."""
    found: Attributes = {}
    size, end = _ATTRIBUTE.size, len(raw)
    while offset + size <= end:
        length, kind = _ATTRIBUTE.unpack_from(raw, offset)
        if length < size:
            break
        found[kind & 0x3FFF] = raw[offset + size : offset + length]
        if kind & 0x3FFF == last:
            break
        offset += (length + 3) & ~3
    return found


def _word(raw: memoryview | None) -> str:
    return bytes(raw).rstrip(b"\0").decode(errors="replace") if raw is not None else ""


def _number(raw: memoryview | None) -> int:
    return int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big") if raw is not None else 0
