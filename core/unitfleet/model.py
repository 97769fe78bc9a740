"""The values that master, agent and unitctl share: what stands in the store, and what a unit asks of a machine.

Frozen, without I/O. Each record is the content of one key (`unitfleet.keys`); `unitfleet.codec` writes it as
versioned JSON and keeps the fields of a newer version in `extra`. Times are seconds since 1970 for display
only: no decision compares the clocks of two machines. The words are those of docs/nomenclature.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class TargetState(StrEnum):
    """What the user wants of a unit (fleet's words), in rising order."""

    DESTROYED = "destroyed"
    INACTIVE = "inactive"
    LOADED = "loaded"
    LAUNCHED = "launched"


class Wanted(StrEnum):
    """What the leader wants of a machine for one unit."""

    LOADED = "loaded"
    LAUNCHED = "launched"
    GONE = "gone"


class CopyPhase(StrEnum):
    """Where a machine is with its copy of a unit, as its agent reports it.

    The placement protocol reads `gone`, `running` and `finished`; the rest narrates.
    """

    WAITING = "waiting"  # placed, its turn has not come
    PULLING = "pulling"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"  # it ended and will be started again; `message` says when and why
    LOADED = "loaded"  # present, not to run
    FINISHED = "finished"  # a oneshot that ended well, or a service that ended and is not to be restarted
    FAILED = "failed"
    GONE = "gone"  # nothing of it is left on this machine


class OnLoss(StrEnum):
    """What to do with a unit whose machine is lost (`OnMachineLoss=`)."""

    MOVE = "move"
    WAIT = "wait"


class MachineStatus(StrEnum):
    """What the leader holds of a machine. *Suspect* is ready with its presence absent: derived, never stored."""

    READY = "ready"
    SUSPECT = "suspect"
    LOST = "lost"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A value in the store. `extra` carries fields that a newer version wrote, untouched."""

    extra: dict[str, Any] = {}


class Unit(Record, frozen=True, kw_only=True):
    """`units/<name>`: what the user asked for. Written by the API."""

    name: str
    spec: str  # SHA-256 of the unit text, its key under specs/
    target: TargetState
    generation: int  # raised by every change
    incarnation: str  # new with each create after a destroy
    restart: int = 0  # raised by every `restart`
    changed_at: float = 0.0


class Placement(Record, frozen=True, kw_only=True):
    """`placements/<machine>/<unit>`: the leader's order to one machine. Absence of it is never an order."""

    unit: str
    machine: str
    spec: str
    incarnation: str
    epoch: int  # cluster-wide, raised by the transaction that wrote this
    wanted: Wanted
    restart: int
    reason: str
    image: str = ""  # digest that was pinned for this spec, "" until an agent reported one
    placed_at: float = 0.0


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A published port: `host` on the machine's address leads to `container`. protocol: tcp | udp."""

    host: int
    container: int
    protocol: str = "tcp"


class UnitState(Record, frozen=True, kw_only=True):
    """`states/<machine>/<unit>`: what the agent sees of its copy. load/active/sub are systemd's words."""

    unit: str
    machine: str
    incarnation: str
    epoch: int  # of the placement this copy belongs to
    restart: int  # the restart number this copy was started with
    spec: str
    phase: CopyPhase
    load: str = "loaded"
    active: str = "inactive"
    sub: str = "dead"
    health: str = ""  # "", starting, healthy, unhealthy
    driver: str = ""
    copy_id: str = ""  # container id, or the supervisor's directory name
    pid: int = 0
    address: str = ""
    ports: tuple[Port, ...] = ()
    image: str = ""  # digest the copy runs
    since: float = 0.0  # when `active` last changed
    restarts: int = 0  # by its restart policy, since it was started
    progress: int = -1  # percent of a pull, -1: none under way
    message: str = ""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine offers to units: cores, bytes, bytes."""

    cpu: float = 0.0
    memory: int = 0
    disk: int = 0


class Presence(Record, frozen=True, kw_only=True):
    """`machines/<id>`, bound to the machine's lease: an agent is there."""

    id: str
    name: str
    nonce: str  # of this agent process
    boot_id: str
    fingerprint: str  # of the host; another one under the same id is a clone
    address: str
    port: int  # of the agent's listener
    metadata: dict[str, str] = {}
    drivers: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    capacity: Capacity = Capacity()
    started_at: float = 0.0
    ttl_s: float = 10.0


class MachineSpec(Record, frozen=True, kw_only=True):
    """`machine-spec/<id>`: what the operator set. Written by the API."""

    id: str
    metadata: dict[str, str] = {}  # overlays the machine's own; an empty value hides the key
    cordoned: bool = False
    drained: bool = False
    lost_join: int = 0  # `machines lost`: holds for this join of the roster only, 0: not said
    removed_join: int = 0  # `machines rm`: the leader clears the machine's keys


class RosterEntry(Record, frozen=True, kw_only=True):
    """`roster/<id>`: a machine that was ever seen, until `machines rm`. Written by the leader."""

    id: str
    name: str
    status: MachineStatus
    join: int  # raised each time it comes back from lost
    address: str = ""
    metadata: dict[str, str] = {}
    capacity: Capacity = Capacity()
    ttl_s: float = 10.0  # of its lease, for the wait that strict units need
    since: float = 0.0  # when `status` last changed
    reason: str = ""


class Resources(Record, frozen=True, kw_only=True):
    """`resources/<id>`, bound to the machine's lease: capacity and use."""

    id: str
    capacity: Capacity
    cpu_used: float = 0.0  # cores
    memory_used: int = 0  # bytes
    disk_used: int = 0  # bytes
    load: float = 0.0  # 1 minute load average


class Fence(Record, frozen=True, kw_only=True):
    """`fence/<id>`: the last fence renewal of a machine that runs strict units."""

    id: str
    nonce: str
    count: int


class Leader(Record, frozen=True, kw_only=True):
    """`leader`, bound to the leader's lease: one term."""

    nonce: str
    name: str
    api: tuple[str, ...] = ()  # where this master's API answers
    since: float = 0.0


class Cluster(Record, frozen=True, kw_only=True):
    """`cluster`: made once, by the first master."""

    id: str
    created_at: float = 0.0


class BrakeOrder(StrEnum):
    """What the operator told the brake."""

    AUTO = "auto"
    HOLD = "hold"
    RELEASE = "release"


class Brake(Record, frozen=True, kw_only=True):
    """`brake`: `cluster hold|release`. A release holds for the losses known at `at`. Written by the API."""

    order: BrakeOrder
    at: float = 0.0


class Pin(Record, frozen=True, kw_only=True):
    """`pins/<spec>`: the image digest that was first pulled for this spec."""

    spec: str
    image: str


class RuleCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many machines one rule refused, with an example of why."""

    rule: str
    machines: int
    example: str


class Pending(Record, frozen=True, kw_only=True):
    """`pending/<unit>`: why a unit is not placed. Written by the leader, on change."""

    unit: str
    considered: int  # machines that were looked at
    refused: tuple[RuleCount, ...] = ()
    hint: str = ""  # the nearest fix
    message: str = ""  # one sentence for a person
    since: float = 0.0


class Happening(Record, frozen=True, kw_only=True):
    """`events/<hour>/<writer>-<n>`: what happened to which unit or machine, and why."""

    at: float
    kind: str  # placed, moved, gone, lost, ready, started, failed, restarted, …
    writer: str
    unit: str = ""
    machine: str = ""
    epoch: int = 0
    message: str = ""


class Stay(Record, frozen=True, kw_only=True):
    """`history/<unit>/<epoch>`: where and when a copy ran, and why it moved there."""

    unit: str
    machine: str
    epoch: int
    at: float
    reason: str


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit asks of a machine: the scheduler's whole view of a unit text.

    `metadata`: any of the values of a key, all of the keys (fleet's rule). `conflicts` and `replaces` are
    globs on unit names (Go's path.Match). `cpu` in cores, `memory` in bytes. `host_ports` are (port, protocol).
    """

    unit: str
    drivers: tuple[str, ...]  # any of these can run it
    machine_id: str = ""
    machine_of: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    conflicts: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    is_global: bool = False
    cpu: float = 0.0
    memory: int = 0
    host_ports: tuple[tuple[int, str], ...] = ()
    container_name: str = ""
    spread: str = ""
    on_loss: OnLoss = OnLoss.MOVE
    on_loss_after_s: float | None = None  # wait this long, then move; None: for ever
    strict: bool = False
    oneshot: bool = False
