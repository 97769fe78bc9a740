"""The scheduler's snapshot: every machine with what is placed on it.

Made of a `ClusterView`, and kept up with it where little has changed (`reseat`, `remeasure`). A planning pass
drafts its own decisions on it (`settle`, `leave`, `clear`, `amend`), so that the next unit is placed as if they
were carried out; what was not carried out is undone by a `reseat` of its unit.
Figures are kept as integers (thousandths of a core, bytes): a sum must not depend on the order of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import msgspec

from unit_master.identities import AGENT
from unit_master.neighbours import Neighbours
from unit_master.view import ClusterView
from unitfleet.bandwidth import asked
from unitfleet.model import Capacity, MachineStatus, Requirements, Wanted
from unitfleet.policy import Policy

if TYPE_CHECKING:
    from unit_master.ranking import Rankings

PortOrName = tuple[int, str] | str
"""What only one unit of a host can hold: a host port with its protocol, or a fixed container name."""

UNSTATED_CPU_MILLIS = 100
UNSTATED_MEMORY = 64 * 1024 * 1024
"""What a unit that states no request weighs on a machine's load: 0.1 core, 64 MiB (docs/architecture.md)."""


def millis(cores: float) -> int:
    """Return cores as thousandths of a core."""
    return round(cores * 1000)


def cpu_weight(unit: Requirements) -> int:
    """Return what the unit weighs on a machine's load, in thousandths of a core."""
    return millis(unit.cpu) or UNSTATED_CPU_MILLIS


def memory_weight(unit: Requirements) -> int:
    """Return what the unit weighs on a machine's load, in bytes."""
    return unit.memory or UNSTATED_MEMORY


def group_of(name: str) -> str:
    """Return the template that `name` is an instance of, or "" when it is none.

    >>> group_of("adserver@1.service")
    'adserver@.service'
    """
    at, dot = name.find("@"), name.rfind(".")
    return f"{name[:at]}@.{name[dot + 1 :]}" if 0 <= at < dot else ""  # as `split` does, at a fifth of its price


@dataclass(slots=True)
class Host:
    """A machine and all that is placed on it, leaving copies included until acknowledged.

    What is placed on a lost machine is not counted: nobody can say what runs there.
    """

    id: str
    name: str
    status: MachineStatus = MachineStatus.READY
    cordoned: bool = False
    drained: bool = False
    shut_out: bool = False  # its certificate is taken no more
    closed: str = ""  # why its agent takes no new units now
    warming: str = ""  # what it lacks before it takes new containers
    ttl_s: float = 10.0  # of its lease
    has_key: bool = False  # its agent can be given secrets
    images: frozenset[str] = frozenset()  # of its warm set, those that it holds
    metadata: Mapping[str, str] = field(default_factory=dict)
    drivers: tuple[str, ...] = ()
    policy: Policy | None = None  # what its own host lets units ask for
    capacity: Capacity = field(default_factory=Capacity)
    units: dict[str, Requirements] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)  # units whose placement here is `gone`
    cpu_millis: int = 0  # requested by the units here, thousandths of a core
    memory_reserved: int = 0  # requested by the units here, bytes
    disk_reserved: int = 0
    egress_reserved: int = 0  # guaranteed to the units here, bit/s
    ingress_reserved: int = 0
    cpu_load: int = 0  # the weights of the units here, which those that request nothing have too
    memory_load: int = 0
    taken: dict[PortOrName, set[str]] = field(default_factory=dict)  # who holds a port or container name
    wary: set[str] = field(default_factory=set)  # units here that name Conflicts
    replacing: set[str] = field(default_factory=set)  # units here that name Replaces

    @property
    def cpu_reserved(self) -> float:
        """Cores requested by the units here."""
        return self.cpu_millis / 1000

    def holds(self, unit: str) -> bool:
        """Say whether a live placement of the unit is here."""
        return unit in self.units and unit not in self.leaving

    def add(self, unit: Requirements) -> None:
        """Count `unit` here, in place of what stood under its name."""
        if unit.unit in self.units:
            self.remove(unit.unit)
        self.units[unit.unit] = unit
        self._count(unit, +1)
        if unit.host_ports or unit.container_name:
            for thing in claims(unit):
                self.taken.setdefault(thing, set()).add(unit.unit)
        if unit.conflicts:
            self.wary.add(unit.unit)
        if unit.replaces:
            self.replacing.add(unit.unit)

    def remove(self, name: str) -> None:
        """Count the unit here no more; unknown is fine."""
        self.leaving.discard(name)
        self.wary.discard(name)
        self.replacing.discard(name)
        unit = self.units.pop(name, None)
        if unit is None:
            return
        self._count(unit, -1)
        for thing in claims(unit):
            holders = self.taken[thing]
            holders.discard(name)
            if not holders:
                del self.taken[thing]

    def _count(self, unit: Requirements, sign: int) -> None:
        cpu, memory = millis(unit.cpu), unit.memory
        self.cpu_millis += sign * cpu
        self.memory_reserved += sign * memory
        self.cpu_load += sign * (cpu or UNSTATED_CPU_MILLIS)
        self.memory_load += sign * (memory or UNSTATED_MEMORY)
        if unit.disk or unit.egress or unit.ingress:
            self.disk_reserved += sign * unit.disk
            self.egress_reserved += sign * unit.egress
            self.ingress_reserved += sign * unit.ingress


def claims(unit: Requirements) -> set[PortOrName]:
    """Return what `unit` must have for itself on a host."""
    things: set[PortOrName] = set(unit.host_ports)
    if unit.container_name:
        things.add(unit.container_name)
    return things


@dataclass(slots=True)
class Scene:
    """Every host, and each unit's place: the machine of its newest live placement, lost or not."""

    hosts: dict[str, Host] = field(default_factory=dict)
    place: dict[str, str] = field(default_factory=dict)
    groups: dict[str, dict[str, int]] = field(default_factory=dict)  # template → machine → instances placed there
    live: dict[str, list[str]] = field(default_factory=dict)  # unit → machines of its live placements, newest last
    secrets: frozenset[str] = frozenset()  # names of those that are set
    pinned: dict[str, str] = field(default_factory=dict)  # unit → the image that is pinned for its text
    seats: dict[str, set[str]] = field(default_factory=dict)  # unit → hosts that count it, leaving or not
    entangled: set[str] = field(default_factory=set)  # units that name others they can't be with
    everywhere: set[str] = field(default_factory=set)  # global ones
    followers: dict[str, set[str]] = field(default_factory=dict)  # unit → those that are where it is (MachineOf)
    promised: dict[str, str] = field(default_factory=dict)  # unit → the host on which room is made for it
    _follows: dict[str, frozenset[str]] = field(default_factory=dict)  # follower → peers
    rated: int = 0  # seats of units that ask for more than cpu and memory
    touched: list[str] = field(default_factory=list)  # hosts that changed, one after the other, since it was made
    altered: list[str] = field(default_factory=list)  # of those the ones that changed themselves, too
    tallies: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # template → Spread= key → value
    neighbours: Neighbours = field(init=False)
    rankings: Rankings | None = None  # for units that ask the same

    def __post_init__(self) -> None:
        self.neighbours = Neighbours(self.seats)

    def settle(self, unit: Requirements, machine: str) -> None:
        """Draft: the unit is placed there now and that is its place; older placements of it stand."""
        self._seat(unit, machine)
        self._leave_live(unit.unit, machine)
        self.live.setdefault(unit.unit, []).append(machine)
        self._find_place(unit.unit)

    def amend(self, unit: Requirements, machine: str) -> None:
        """Draft: it is given what it asks for now where it is."""
        self._seat(unit, machine)

    def promise(self, unit: Requirements, machine: str) -> None:
        """Draft: room is made for the unit there, which nobody else may take until it is decided about again."""
        self._seat(msgspec.structs.replace(unit, replaces=()), machine)  # nobody is replaced before it is there
        self.promised[unit.unit] = machine

    def unpromise(self, unit: str) -> None:
        """Take back what was promised to a unit, if anything was."""
        machine = self.promised.pop(unit, None)
        if machine is not None:
            self._unseat(unit, machine)
            if unit not in self.seats:
                self._disentangle(unit)

    def leave(self, unit: str, machine: str) -> None:
        """Draft: its placement there becomes `gone`. It keeps resources, ports and Conflicts until cleared."""
        host = self.hosts.get(machine)
        if host is not None and unit in host.units:
            host.leaving.add(unit)
            self.touched.append(machine)
        self._leave_live(unit, machine)
        self._find_place(unit)

    def clear(self, unit: str, machine: str) -> None:
        """Draft: nothing of it is there any more."""
        self._unseat(unit, machine)
        self._leave_live(unit, machine)
        self._find_place(unit)

    def reseat(self, view: ClusterView, unit: str) -> None:
        """Take up what the view says of a unit, in place of all that was known or drafted of it."""
        self.promised.pop(unit, None)
        for machine in sorted(self.seats.get(unit, ())):
            self._unseat(unit, machine)
        self._disentangle(unit)
        self.live.pop(unit, None)
        self._find_place(unit)
        self._take(view, unit)

    def remeasure(self, view: ClusterView, machine: str) -> None:
        """Take up what a machine's agent measured, and which images it holds."""
        host = self.hosts.get(machine)
        if host is not None:
            host.capacity, host.closed = _measured(view, machine)
            host.images = _images(view, machine)
            self.altered.append(machine)
            self.touched.append(machine)

    def rehost(self, view: ClusterView, machine: str) -> set[str] | None:
        """Take up what the view says of a machine, and return the units that were or are placed there.

        None: it was forgotten, and a scene has to be made anew.
        """
        if machine not in view.roster:
            return None if machine in self.hosts else set()
        units = set(view.on_machine.get(machine, ()))
        new, host = _host(view, machine), self.hosts.get(machine)
        if host is None:
            self.hosts[machine] = new
            self.rankings = None
            moved = True
        else:
            units |= host.units.keys()
            relabelled = host.metadata != new.metadata
            moved = relabelled or (host.status is MachineStatus.LOST) != (new.status is MachineStatus.LOST)
            if relabelled:
                self.rankings = None  # which have hosts by their metadata
            for name in _OWN:
                setattr(host, name, getattr(new, name))
        self.altered.append(machine)
        self.touched.append(machine)
        if moved:
            for unit in sorted(units):
                self.reseat(view, unit)
            self.tallies.clear()
        return units

    def _take(self, view: ClusterView, unit: str) -> None:
        """Count a unit of which nothing is counted."""
        self.pinned.pop(unit, None)
        entry = view.units.get(unit)
        if entry is not None and entry.value.spec in view.pins:
            self.pinned[unit] = view.pins[entry.value.spec].value.image
        for machine, placed in sorted(view.placements_of(unit).items(), key=lambda item: item[1].value.epoch):
            placement = placed.value
            spec = view.spec(unit, placement.spec)
            needs = asked(spec.requirements, placement.bandwidth) if spec else Requirements(unit=unit, drivers=())
            if placement.wanted is not Wanted.GONE:
                self.settle(needs, machine)
            else:
                self._seat(needs, machine)
                self.leave(unit, machine)

    def _seat(self, unit: Requirements, machine: str) -> None:
        """Count the unit on a host; nobody can say what runs on a lost one."""
        if unit.is_global or unit.machine_of or unit.conflicts or unit.replaces:
            self._entangle(unit)
        host = self.hosts.get(machine)
        if host is not None and host.status is not MachineStatus.LOST:
            held = self.seats.get(unit.unit)
            if held is None:
                held = self.seats[unit.unit] = set()
            elif machine in held:
                self._forget(host.units[unit.unit], machine)
            host.add(unit)
            self.rated += bool(unit.disk or unit.egress or unit.ingress)
            self.neighbours.add(unit, machine)
            held.add(machine)
            self.touched.append(machine)

    def _entangle(self, unit: Requirements) -> None:
        """Note what the place of a unit has to do with others."""
        if unit.conflicts or unit.replaces:
            self.entangled.add(unit.unit)
        if unit.is_global:
            self.everywhere.add(unit.unit)
        if unit.machine_of:
            self._follows[unit.unit] = self._follows.get(unit.unit, frozenset()) | frozenset(unit.machine_of)
            for peer in unit.machine_of:
                self.followers.setdefault(peer, set()).add(unit.unit)

    def _disentangle(self, unit: str) -> None:
        self.entangled.discard(unit)
        self.everywhere.discard(unit)
        for peer in self._follows.pop(unit, ()):
            held = self.followers[peer]
            held.discard(unit)
            if not held:
                del self.followers[peer]

    def _unseat(self, unit: str, machine: str) -> None:
        host = self.hosts.get(machine)
        held = self.seats.get(unit)
        if held is not None and machine in held:
            held.discard(machine)
            if host is not None:
                self._forget(host.units[unit], machine)
            if not held:
                del self.seats[unit]
        if host is not None:
            host.remove(unit)
            self.touched.append(machine)

    def _forget(self, unit: Requirements, machine: str) -> None:
        self.neighbours.remove(unit, machine)
        self.rated -= bool(unit.disk or unit.egress or unit.ingress)

    def siblings(self, unit: str) -> dict[str, int]:
        """Return how many instances of the unit's template, itself left out, have their place on each host.

        Those on lost machines are left out. A unit that is no instance has no siblings.
        """
        counts = dict(self.groups.get(group_of(unit), {}))
        own = self.place.get(unit)
        if own in counts:
            counts[own] -= 1
        return {
            machine: count
            for machine, count in counts.items()
            if count and machine in self.hosts and self.hosts[machine].status is not MachineStatus.LOST
        }

    def tally(self, group: str, key: str) -> dict[str, int]:
        """Return how many instances of a template have their place over each value of a metadata key.

        Those on lost machines are left out. The answer keeps itself up to date.
        """
        by_key = self.tallies.setdefault(group, {})
        if key not in by_key:
            by_key[key] = {}
            for machine, count in self.groups.get(group, {}).items():
                self._tell(by_key[key], key, machine, count)
        return by_key[key]

    def _tell(self, tally: dict[str, int], key: str, machine: str | None, count: int) -> None:
        host = self.hosts.get(machine) if machine is not None else None
        if host is not None and host.status is not MachineStatus.LOST:
            value = host.metadata.get(key, "")
            tally[value] = tally.get(value, 0) + count

    def _leave_live(self, unit: str, machine: str) -> None:
        machines = self.live.get(unit)
        if machines is None or machine not in machines:
            return
        machines.remove(machine)
        if not machines:
            del self.live[unit]

    def _find_place(self, unit: str) -> None:
        machines = self.live.get(unit)
        old, new = self.place.get(unit), machines[-1] if machines else None
        if old == new:
            return
        group = group_of(unit)
        if group:
            counts = self.groups.setdefault(group, {})
            if old is not None:
                counts[old] -= 1
            if new is not None:
                counts[new] = counts.get(new, 0) + 1
            for key, tally in self.tallies.get(group, {}).items():
                self._tell(tally, key, old, -1)
                self._tell(tally, key, new, +1)
        if new is None:
            del self.place[unit]
        else:
            self.place[unit] = new


_NAMES = [each.name for each in fields(Host)]
_OWN = _NAMES[: _NAMES.index("units")]
"""The attributes of a host before what is placed on it."""


def scene_of(view: ClusterView) -> Scene:
    """Make the snapshot of what the store says now. A machine is a host when the roster has it."""
    scene = Scene({machine: _host(view, machine) for machine in sorted(view.roster)})
    scene.secrets = frozenset(view.secrets)
    for unit in view.units.keys() | view.placements.keys():
        scene._take(view, unit)
    return scene


def _measured(view: ClusterView, machine: str) -> tuple[Capacity, str]:
    """Return a machine's capacity, and why it takes no new units, "" when it does."""
    measured = view.resources.get(machine)
    known = measured or view.presence.get(machine) or view.roster[machine]
    return known.value.capacity, measured.value.closed if measured else ""


def _images(view: ClusterView, machine: str) -> frozenset[str]:
    told = view.images.get(machine)
    return frozenset(told.value.held) if told else frozenset()


def _host(view: ClusterView, machine: str) -> Host:
    known = view.roster[machine].value
    present = view.presence.get(machine)
    ordered = view.machine_specs.get(machine)
    capacity, closed = _measured(view, machine)
    status = known.status
    if status is not MachineStatus.LOST:
        status = MachineStatus.READY if present else MachineStatus.SUSPECT
    return Host(
        id=machine,
        name=view.machine_name(machine),
        status=status,
        cordoned=ordered is not None and ordered.value.cordoned,
        drained=ordered is not None and ordered.value.drained,
        shut_out=view.is_denied(AGENT, machine),
        closed=closed,
        warming=present.value.warming if present else "",
        ttl_s=known.ttl_s,
        has_key=bool(present and present.value.public_key),
        images=_images(view, machine),
        metadata=view.metadata(machine),
        drivers=present.value.drivers if present else (),
        policy=present.value.policy if present else None,
        capacity=capacity,
    )
