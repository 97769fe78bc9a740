"""Short ways to say what a test needs: machines, units, placements as records in a `ClusterView`.

Everything goes through the records' own encoding and `apply_listing`, so that a view in a test is one the
store could have made. A machine's id is its name unless the test says otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unit_master.scene import Host, Scene
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.model import (
    Bandwidth,
    Capacity,
    CopyPhase,
    MachineSpec,
    MachineStatus,
    Pending,
    Placement,
    Presence,
    Record,
    Requirements,
    Resources,
    RosterEntry,
    TargetState,
    Unit,
    UnitState,
    Wanted,
)
from unitfleet.policy import Policy
from unitfleet.store import KeyValue, Listing

MIB = 1024 * 1024
GIB = 1024 * MIB
ROOMY = Capacity(cpu=4.0, memory=4 * GIB, disk=100 * GIB)
SERVICE = "[Service]\nExecStart=/bin/sleep 1000\n"
CONTAINER = "[Container]\nImage=adserver:1\n"

Piece = tuple[str, bytes]
"""A key of the store and its value."""


@dataclass(frozen=True, slots=True)
class Built:
    """Some keys of the store that belong together."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class BuiltUnit(Built):
    """A unit with its text; `unit` is its record, for placements and states of it."""

    unit: Unit


def a_machine(
    name: str = "m1",
    *,
    id: str = "",
    status: MachineStatus = MachineStatus.READY,
    present: bool = True,
    metadata: Mapping[str, str] | None = None,
    drivers: tuple[str, ...] = ("docker", "process"),
    capacity: Capacity = ROOMY,
    measured: Capacity | None = None,
    ordered: Mapping[str, str] | None = None,
    cordoned: bool = False,
    drained: bool = False,
    join: int = 1,
    since: float = 0.0,
    nonce: str = "n1",
    known: bool = True,
    policy: Policy | None = None,
    public_key: str = "",
    warm: tuple[str, ...] = (),
) -> Built:
    """Build a machine: roster (unless not `known`), presence (if `present` and not lost) and machine-spec.

    `measured` is what its resources record says; `ordered` is the operator's metadata.
    """
    machine = id or name
    own = dict(metadata or {})
    records: list[tuple[str, Record]] = []
    if known:
        entry = RosterEntry(
            id=machine,
            name=name,
            status=status,
            join=join,
            address="127.0.0.1",
            metadata=own,
            capacity=capacity,
            since=since,
        )
        records.append((keys.roster(machine), entry))
    if present and status is not MachineStatus.LOST:
        presence = Presence(
            id=machine,
            name=name,
            nonce=nonce,
            boot_id="b1",
            fingerprint="f1",
            address="127.0.0.1",
            port=7777,
            metadata=own,
            drivers=drivers,
            capacity=capacity,
            policy=policy,
            public_key=public_key,
            warm=warm,
        )
        records.append((keys.presence(machine), presence))
    if measured is not None:
        records.append((keys.resources(machine), Resources(id=machine, capacity=measured)))
    if cordoned or drained or ordered:
        spec = MachineSpec(id=machine, metadata=dict(ordered or {}), cordoned=cordoned, drained=drained)
        records.append((keys.machine_spec(machine), spec))
    return _built(records)


def a_unit(
    name: str = "a.service",
    fleet: str = "",
    *,
    text: str = "",
    target: TargetState = TargetState.LAUNCHED,
    generation: int = 1,
    incarnation: str = "i1",
    restart: int = 0,
    bandwidth: Bandwidth | None = None,
) -> BuiltUnit:
    """Build a unit and its text: a long sleep with the lines `fleet` in [X-Fleet], or `text` as it is."""
    text = text or SERVICE + (f"\n[X-Fleet]\n{fleet}\n" if fleet else "")
    digest = digest_of(text)
    unit = Unit(
        name=name,
        spec=digest,
        target=target,
        generation=generation,
        incarnation=incarnation,
        restart=restart,
        bandwidth=bandwidth,
    )
    return BuiltUnit(((keys.spec(digest), text.encode()), (keys.unit(name), codec.encode(unit))), unit)


def a_placement(
    of: BuiltUnit,
    machine: str,
    *,
    epoch: int = 1,
    wanted: Wanted = Wanted.LAUNCHED,
    reason: str = "least loaded of 1 that fit",
    incarnation: str | None = None,
    restart: int | None = None,
    spec: str | None = None,
    bandwidth: Bandwidth | None = None,
) -> Built:
    """Build a placement of the unit as it is; name what is to differ."""
    placement = Placement(
        unit=of.unit.name,
        machine=machine,
        spec=of.unit.spec if spec is None else spec,
        incarnation=of.unit.incarnation if incarnation is None else incarnation,
        epoch=epoch,
        wanted=wanted,
        restart=of.unit.restart if restart is None else restart,
        reason=reason,
        bandwidth=bandwidth,
    )
    return _built([(keys.placement(machine, of.unit.name), placement)])


def a_state(
    of: BuiltUnit,
    machine: str,
    phase: CopyPhase = CopyPhase.RUNNING,
    *,
    epoch: int = 1,
    incarnation: str | None = None,
    restart: int | None = None,
    spec: str | None = None,
) -> Built:
    """Build what an agent reports of its copy of the unit as it is; name what is to differ."""
    running = phase is CopyPhase.RUNNING
    state = UnitState(
        unit=of.unit.name,
        machine=machine,
        incarnation=of.unit.incarnation if incarnation is None else incarnation,
        epoch=epoch,
        restart=of.unit.restart if restart is None else restart,
        spec=of.unit.spec if spec is None else spec,
        phase=phase,
        active="active" if running else "inactive",
        sub="running" if running else "dead",
    )
    return _built([(keys.state(machine, of.unit.name), state)])


def a_pending(of: BuiltUnit, message: str, *, hint: str = "", since: float = 0.0) -> Built:
    """Build the record that tells why the unit is not placed."""
    pending = Pending(unit=of.unit.name, considered=0, message=message, hint=hint, since=since)
    return _built([(keys.pending(of.unit.name), pending)])


def a_record(key: str, record: Record) -> Built:
    """Build any other record."""
    return _built([(key, record)])


def a_view(*built: Built, epoch: int = 0) -> ClusterView:
    """Make the view of a store that holds all of this, each key written at a revision of its own."""
    view = ClusterView()
    view.apply_listing(a_listing(*built, epoch=epoch))
    return view


def a_listing(*built: Built, epoch: int = 0) -> Listing:
    """List the keys as a store would; of a key built twice the later counts."""
    pieces = dict(piece for some in built for piece in some.pieces)
    if epoch:
        pieces[keys.EPOCH] = str(epoch).encode()
    revisions = {key: revision for revision, key in enumerate(pieces, start=2)}
    items = (KeyValue(key, pieces[key], revisions[key], revisions[key], 1) for key in sorted(pieces))
    return Listing(len(pieces) + 1, tuple(items))


def digest_of(text: str) -> str:
    """Return the key of a unit text under specs/."""
    return hashlib.sha256(text.encode()).hexdigest()


def needs(name: str = "a.service", **wishes: object) -> Requirements:
    """Build what a unit asks of a machine; it runs by the process driver unless the test says otherwise."""
    return Requirements(**{"unit": name, "drivers": ("process",), **wishes})  # type: ignore[arg-type]


def a_host(
    name: str = "m1",
    *units: Requirements,
    id: str = "",
    leaving: Iterable[str] = (),
    status: MachineStatus = MachineStatus.READY,
    cordoned: bool = False,
    drained: bool = False,
    shut_out: bool = False,
    metadata: Mapping[str, str] | None = None,
    drivers: tuple[str, ...] = ("docker", "process"),
    capacity: Capacity = ROOMY,
) -> Host:
    """Build a host with units on it, those in `leaving` on their way out."""
    host = Host(
        id=id or name,
        name=name,
        status=status,
        cordoned=cordoned,
        drained=drained,
        shut_out=shut_out,
        metadata=dict(metadata or {}),
        drivers=drivers,
        capacity=capacity,
    )
    for unit in units:
        host.add(unit)
    host.leaving.update(leaving)
    return host


def a_scene(*hosts: Host) -> Scene:
    """Build the scheduler's snapshot: each unit's place is the last of `hosts` on which it stays."""
    scene = Scene({host.id: host for host in hosts})
    for host in hosts:
        leaving = set(host.leaving)
        for unit in list(host.units.values()):
            scene.settle(unit, host.id)
        for unit_name in sorted(leaving):
            scene.leave(unit_name, host.id)
    return scene


def _built(records: Iterable[tuple[str, Record]]) -> Built:
    return Built(tuple((key, codec.encode(record)) for key, record in records))
