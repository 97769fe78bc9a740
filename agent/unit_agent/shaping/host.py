"""One round on this host: look, plan, carry out. Blocks; the duty calls it from a thread of its own.

What stands is the truth: a new agent finds it, keeps what is right and mends the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from unit_agent.resources import network
from unit_agent.shaping import firewall, ifb, places
from unit_agent.shaping.layout import Layout
from unit_agent.shaping.plan import Op, Put, Remove, describe, plan
from unit_agent.shaping.reader import Reader
from unit_agent.shaping.rules import PROGRAMS
from unit_agent.shaping.seen import Counters, Link, Standing
from unit_agent.shaping.shape import Group, HostShape, Nowhere, Place, UnitShape, Veths, minors, pull_cap
from unit_agent.shaping.things import (
    IN,
    OUT,
    UPLINK_TREE,
    Class,
    Filter,
    Ifb,
    Key,
    Mark,
    Qdisc,
    Rules,
    TcSeen,
    Thing,
)
from unitfleet.errors import DriverError
from unitfleet.model import Bandwidth

if TYPE_CHECKING:
    from unit_agent.shaping.kernel import Kernel

GRACE_S = 30.0
"""So long after its start an agent removes only what it has wanted itself: not all drivers may have answered."""

PLACES_S = 30.0
"""How often it is looked for anew where each unit's packets can be caught: a network may be joined later."""

UPLINK_S = 60.0
"""How often the uplink and its speed are looked for anew."""

RULES_S = 4.0
"""The firewall tells nobody of changes: this old an answer is asked for anew."""

ALONE = "\0unitfleet-shaping"
"""A name in the abstract namespace of sockets, which each network namespace has for itself."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A unit that runs here, by a process of it, and what is wanted of it."""

    unit: str
    pid: int
    bandwidth: Bandwidth


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator says: rates in bit/s (0: the uplink's own, no limit), reserved ports, its address.

    `pull_limit` None: half of what the uplink can take in, where that is known.
    """

    address: str
    egress: int = 0
    ingress: int = 0
    ports: tuple[int, ...] = ()
    may_shape_uplink: bool = True
    pull_limit: int | None = 0
    engine_socket: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round found and did. `failed`: what could not be made, why; `repaired`: what somebody had undone."""

    shape: HostShape = field(default_factory=HostShape)
    layout: Layout = field(default_factory=Layout)
    failed: Mapping[Key, str] = field(default_factory=dict)
    repaired: tuple[tuple[str, str], ...] = ()  # unit ("" for all), what
    done: tuple[Op, ...] = ()
    trouble: str = ""
    took_s: float = 0.0

    def trouble_of(self, unit: str) -> str:
        """Return why something that is wanted of a unit is not in force, or ""."""
        failed = [why for key, why in self.failed.items() if self.layout.concerns(key, unit)]
        return "; ".join(filter(None, [self.layout.troubles.get(unit, ""), *failed[:1], self.trouble]))

    @property
    def pull_trouble(self) -> str:
        """Return why the pulls under way are not capped although they should be, or ""."""
        failed = [why for key, why in self.failed.items() if key[0] in ("rules", "mark")]
        return self.layout.pull_trouble or (
            f"image pulls are not capped: {failed[0]}" if failed and self.layout.pull_rules else ""
        )

    def limits_of(self, unit: str) -> tuple[int, int]:
        """Return the ceilings that stand for what a unit sends and gets, bit/s; 0: none."""
        wanted = next((each.bandwidth for each in self.shape.units if each.unit == unit), None)
        if wanted is None or self.trouble or any(self.layout.concerns(key, unit) for key in self.failed):
            return 0, 0
        egress = wanted.egress_limit if unit in self.layout.sends else 0
        return egress, wanted.ingress_limit if unit in self.layout.receives else 0


class Host:
    """What this agent knows of its host's shaping between rounds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self._uplink = ("", 0, 0)
        self._uplink_at = -UPLINK_S
        self._rules_at = -RULES_S
        self._minors: dict[str, int] = {}
        self._stood: dict[Key, Thing] = {}
        self._rules_left = False  # firewall rules stand that are not as wanted, or it is not known
        self._rules_unread = False  # the firewall did not answer in this round
        self._known: set[Key] = set()
        self._links: dict[str, Link] = {}
        self._links_at = -PLACES_S
        self._places: dict[tuple[str, int], Place] = {}
        self._places_at = -PLACES_S
        self._cache: dict[str, tuple[int, tuple[Qdisc, ...], Standing]] = {}
        self._alone: socket.socket | None = None

    def close(self) -> None:
        """Let another agent of this network namespace shape; what stands, stands."""
        if self._alone is not None:
            self._alone.close()
            self._alone = None

    @property
    def idle(self) -> bool:
        """Whether nothing of ours stands: wherever something does, the ifb of what is sent is there."""
        return not (self._stood or self._rules_left) and not any(
            name in (OUT, IN) for _, name in socket.if_nameindex()
        )

    def rests(self, asks: Sequence[Ask], *, pulling: bool) -> bool:
        """Tell whether nothing is asked for and nothing stands: a round then does not look at the kernel."""
        capped = pulling and self._settings.pull_limit != 0
        return self.idle and not capped and not any(ask.bandwidth for ask in asks)

    def round(
        self, asks: Sequence[Ask], dirty: frozenset[int] | None, *, keep: bool, pulling: bool = False
    ) -> Outcome:
        """Bring the host's shaping to what is asked.

        Interfaces whose index is in `dirty` are looked at anew (None: all). With `keep` nothing is removed: not
        everything that runs here is known now. The cap of pulls stands while `pulling`. Raises `OSError` when the
        kernel can't be asked.
        """
        if self.rests(asks, pulling=pulling):
            self.close()  # nothing stands: a pull that was capped once keeps no other agent from shaping
            return Outcome()
        with Reader() as reader:
            return self._round(reader, asks, dirty, keep, pulling and self._settings.pull_limit != 0)

    def count(self, devices: Sequence[str]) -> dict[str, Mapping[int, Counters]]:
        """Return the counters of the classes of some interfaces, by handle. Raises `OSError`."""
        with Reader() as reader:
            reader.links()
            return {device: reader.counters(device) for device in devices}

    def _round(
        self, reader: Reader, asks: Sequence[Ask], dirty: frozenset[int] | None, keep: bool, capped: bool
    ) -> Outcome:
        began = time.perf_counter()
        links = self._links_now(reader, dirty)
        shape = self._shape(asks, links, dirty, capped)
        seen = self._look(reader, links, shape, dirty)
        made = plan(shape, seen)
        if not self._may_act(bool(made.layout.things or seen.things)):
            why = "another agent on this host shapes already"
            return Outcome(shape, made.layout, trouble=why if made.layout.things else "")
        wanted = made.layout.owners.keys()
        ops = [
            op
            for op in made.ops
            if isinstance(op, Put) or op.thing.key in wanted or self._may_remove(op.thing, keep)
        ]
        failed = asyncio.run(self._carry_out(ops, links)) if ops else {}
        repaired = tuple(
            (made.layout.owners.get(op.thing.key, ""), op.reason)
            for op in ops
            if isinstance(op, Put) and self._stood.get(op.thing.key) == op.thing and op.thing.key not in failed
        )
        stood = bool(self._stood)
        self._stood = {thing.key: thing for thing in made.layout.things if thing.key not in failed}
        self._known = (self._known & {thing.key for thing in seen.things}) | self._stood.keys()
        gone = {op.thing.key for op in ops if not isinstance(op, Put)} - failed.keys()
        left = {thing.key for thing in seen.things if isinstance(thing, Rules)} - gone - self._stood.keys()
        # where nothing of ours was seen to stand, a firewall that does not answer holds nothing of ours
        some = self._rules_left or stood or bool(seen.things)
        self._rules_left = bool(left) or (self._rules_unread and some)
        return Outcome(shape, made.layout, failed, repaired, tuple(ops), "", time.perf_counter() - began)

    def _links_now(self, reader: Reader, dirty: frozenset[int] | None) -> dict[str, Link]:
        """Return the interfaces. While they bear the numbers and names that they did, they are the same ones.

        The kernel's list of them with all their figures is most of what a round beside many containers would read.
        """
        named = {(link.index, link.name) for link in self._links.values()}
        old = time.monotonic() - self._links_at > PLACES_S
        if dirty is None or old or named != set(socket.if_nameindex()):
            links = reader.links()
            self._links_at = time.monotonic()
            return links
        reader.know(self._links)
        return self._links

    def _shape(
        self, asks: Sequence[Ask], links: dict[str, Link], dirty: frozenset[int] | None, capped: bool
    ) -> HostShape:
        """Find where each unit's packets can be caught; on the host's network only those of units with keys."""
        self._minors = minors((ask.unit for ask in asks if ask.bandwidth), self._minors)
        units = []
        if dirty is None or time.monotonic() - self._places_at > PLACES_S:
            self._places, self._places_at = {}, time.monotonic()
        known, self._places = self._places, {}
        for ask in asks:
            place = known.get((ask.unit, ask.pid))
            if place is None or not self._is_there(place, links):
                place = places.place(ask.pid, links)
            if isinstance(place, Veths | Group):
                self._places[ask.unit, ask.pid] = place
            if place is None or (isinstance(place, Group) and not ask.bandwidth):
                continue
            units.append(UnitShape(ask.unit, self._minors.get(ask.unit, 0), ask.bandwidth, place))
        if time.monotonic() - self._uplink_at > UPLINK_S:
            name = network.uplink(self._settings.address)
            speed = network.speed(name) if name else 0
            self._uplink = (name, self._settings.egress or speed, self._settings.ingress or speed)
            self._uplink_at = time.monotonic()
        self._links = links
        name, egress, ingress = self._uplink
        said = self._settings
        shape = HostShape(tuple(units), name, egress, ingress, said.ports, said.may_shape_uplink)
        limit = pull_cap(said.pull_limit, ingress) if capped else 0
        return replace(shape, pull_limit=limit, engine=self._engine()) if limit else shape

    def _engine(self) -> Group | Nowhere:
        """Return what tells the packets of pulls from others."""
        if not firewall.installed(PROGRAMS[0]):
            return Nowhere(f"{PROGRAMS[0]} is not installed")
        return places.engine(self._settings.engine_socket)

    def _is_there(self, place: Place, links: dict[str, Link]) -> bool:
        """Tell whether a container's interfaces are still the ones that were found."""
        return not isinstance(place, Veths) or all(
            name in links and self._links.get(name) == links[name] for name in place.interfaces
        )

    def _look(
        self, reader: Reader, links: Mapping[str, Link], shape: HostShape, dirty: frozenset[int] | None
    ) -> TcSeen:
        """Return what stands. What was looked at before and has not changed since is remembered."""
        things: list[Thing] = []
        foreign: list[tuple[str, str]] = []
        qdiscs = reader.qdiscs()
        if dirty is None or self._ifbs_changed(links):
            self._cache.clear()
        for name, link in links.items():
            here, kept = qdiscs.get(name, ()), self._cache.get(name)
            if kept is not None and kept[:2] == (link.index, here) and link.index not in (dirty or ()):
                found = kept[2]
            else:
                found = reader.standing(name, here)
                self._cache[name] = (link.index, here, found)
            things += found.things
            if found.foreign:
                foreign.append((name, found.foreign))
        for name in self._cache.keys() - links.keys():
            del self._cache[name]
        things += self._marks(shape)
        things += self._rules(shape, any(name in links for name in (OUT, IN)))
        return TcSeen(tuple(things), tuple(foreign))

    def _marks(self, shape: HostShape) -> list[Mark]:
        """Return the class ids of ours that stand in net_cls, where there should be some or were."""
        groups = {thing.path: thing.inode for thing in self._stood.values() if isinstance(thing, Mark)}
        for place in (*(unit.place for unit in shape.units), shape.engine):
            if isinstance(place, Group) and place.version == 1:
                groups[place.path] = place.inode
        found = []
        for path, inode in groups.items():
            with contextlib.suppress(OSError):  # it has just gone
                number = places.class_id(path)
                if number >> 16 == UPLINK_TREE:
                    found.append(Mark(path, inode, number))
        return found

    def _ifbs_changed(self, links: Mapping[str, Link]) -> bool:
        """Tell whether an ifb was made anew: filters still name the one that is gone, and nobody is told."""
        return any(
            index != (links[name].index if name in links else -1)
            for name, (index, _, found) in self._cache.items()
            if any(thing.key == ("link", name) for thing in found.things)
        )

    def _rules(self, shape: HostShape, marked: bool) -> list[Rules]:
        """Return our firewall rules as they stand, or as they were moments ago: to ask takes two processes.

        They are asked for only where there may be some: an ifb marks a host where an earlier agent made any.
        """
        self._rules_unread = False
        stood = [thing for thing in self._stood.values() if isinstance(thing, Rules)]
        wanted = any(unit.bandwidth.egress or isinstance(unit.place, Group) for unit in shape.units)
        wanted = wanted or isinstance(shape.engine, Group)
        if not (stood or wanted or self._rules_left or (marked and not self._known)):
            return []
        if stood and not self._rules_left and time.monotonic() - self._rules_at < RULES_S:
            return stood
        self._rules_at = time.monotonic()
        found = []
        for program in PROGRAMS:
            if not firewall.installed(program):
                continue
            if not firewall.available(program):
                found += [rules for rules in stood if rules.program == program]  # nothing passes: it is as wanted
                continue
            try:
                rules = firewall.standing(program)
            except DriverError:
                self._rules_unread = True
                continue  # what is to stand there will fail, and say why
            if rules is not None:
                found.append(rules)
        return found

    def _may_act(self, needed: bool) -> bool:
        """Tell whether this agent is the one that shapes in this network namespace."""
        if self._alone is not None or not needed:
            return True
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            held.bind(ALONE)
        except OSError:
            held.close()
            return False
        self._alone = held
        return True

    def _may_remove(self, thing: Thing, keep: bool) -> bool:
        if thing.key in self._known:
            return not keep or thing.key in self._stood
        return not keep and time.monotonic() - self._began > GRACE_S

    async def _carry_out(self, ops: Sequence[Op], links: Mapping[str, Link]) -> dict[Key, str]:
        """Do the steps; return why each that could not be done could not, by thing."""
        failed: dict[Key, str] = {}
        indexes = {name: link.index for name, link in links.items()}
        async with contextlib.AsyncExitStack() as stack:
            kernel: Kernel | None = None
            for op in ops:
                self._cache.pop(getattr(op.thing, "device", ""), None)
                try:
                    if kernel is None and isinstance(op.thing, Qdisc | Class | Filter):
                        kernel = await stack.enter_async_context(_kernel(indexes))
                    if (
                        isinstance(op, Remove)
                        and isinstance(op.thing, Ifb)
                        and any(key[0] == "rules" for key in failed)
                    ):
                        raise DriverError("it tells the next round that there are rules to remove")
                    await _do(kernel, indexes, op)
                except (DriverError, OSError) as error:
                    failed[op.thing.key] = f"cannot {_verb(op)} {describe(op.thing)}: {_words(error)}"
        return failed


def _kernel(indexes: Mapping[str, int]) -> AbstractAsyncContextManager[Kernel]:
    # pyroute2 takes 11 MB and 70 ms: an agent whose units have no bandwidth never loads it
    from unit_agent.shaping.kernel import Kernel

    return Kernel.opened(indexes)


async def _do(kernel: Kernel | None, indexes: dict[str, int], op: Op) -> None:
    match op:
        case Put(Rules(program)) | Remove(Rules(program)) if not firewall.available(program):
            pass  # no packet of its kind is there
        case Put(Rules() as rules, _, now):
            firewall.put(rules, now if isinstance(now, Rules) else None)
        case Remove(Rules() as rules):
            firewall.remove(rules)
        case Put(Mark() as mark):
            places.put_class_id(mark.path, mark.class_id)
        case Remove(Mark() as mark):
            with contextlib.suppress(FileNotFoundError):  # it went with its group
                places.put_class_id(mark.path, 0)
        case Put(Ifb(name)):
            indexes[name] = ifb.make(name)
        case Remove(Ifb(name)):
            ifb.remove(name)
            indexes.pop(name, None)
        case Put(thing, _, instead) if kernel is not None:
            await kernel.put(thing, instead)
        case Remove(thing) if kernel is not None:
            await kernel.remove(thing)


def _words(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def _verb(op: Op) -> str:
    return "set" if isinstance(op, Put) else "remove"
