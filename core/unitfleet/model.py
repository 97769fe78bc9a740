"""The values that master, agent and unitctl share: what stands in the store, and what a unit asks of a machine.

Frozen, without I/O. Each record is the content of one key (`unitfleet.keys`); `unitfleet.codec` writes it as
versioned JSON and keeps the fields of a newer version in `extra`. Times are seconds since 1970 for display
only: no decision compares the clocks of two machines. The words are those of docs/nomenclature.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from unitfleet.policy import Demands, Policy


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


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit may send and get, bit/s; 0: not said. *Egress* leaves the unit, *ingress* comes to it.

    `egress` and `ingress` are guaranteed, and scheduled; the limits are ceilings (0: the guarantee borrows up to
    the uplink). `burst` is in bytes (0: as much as the rate needs).
    """

    egress: int = 0
    ingress: int = 0
    egress_limit: int = 0
    ingress_limit: int = 0
    burst: int = 0

    def __bool__(self) -> bool:
        """Whether anything is said."""
        return bool(self.egress or self.ingress or self.egress_limit or self.ingress_limit)


class Cause(StrEnum):
    """Why a copy last ended or was started again: what `restarts` counts, in a word."""

    NONE = ""
    EXIT = "exit-code"
    SIGNAL = "signal"
    OOM = "oom"  # over its memory limit, or the host's memory
    ULIMIT = "ulimit"  # out of open files or processes
    HEALTH = "health"  # its check failed
    TIMEOUT = "timeout"


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
    bandwidth: Bandwidth | None = None  # `net limit`: in place of what the text says
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
    bandwidth: Bandwidth | None = None  # the unit's, in place of what its text says
    tried: tuple[str, ...] = ()  # machines on which the unit, as it is ordered here, has failed before
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
    cause: Cause = Cause.NONE  # of its last end
    progress: int = -1  # percent of a pull, -1: none under way
    message: str = ""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine offers to units: cores, bytes, bytes, and its uplink's bit/s; 0: not known."""

    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    egress: int = 0
    ingress: int = 0


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
    public_key: str = ""  # what is sealed to it, this machine alone can open
    warming: str = ""  # what it still lacks before it takes new units: `2 of 5 images`
    warm: tuple[str, ...] = ()  # images that its settings name for its warm set
    policy: Policy | None = None  # what units may ask of it; None: its host has none


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
    egress_used: int = 0  # bit/s
    ingress_used: int = 0  # bit/s
    pressure: dict[str, float] = {}  # cpu, memory, io: share of the last minute that somebody waited, in percent
    closed: str = ""  # why it takes no new units now: `disk: 93 % of /var/lib/docker used, closed from 90 %`


class WarmImage(Record, frozen=True, kw_only=True):
    """`warm/<digest of the reference>`: an image that machines are to hold. Written by the API."""

    image: str
    where: dict[str, str] = {}  # machines with all of this metadata; {}: every machine
    pinned: bool = True  # garbage collection spares it
    at: float = 0.0


class WarmSet(Record, frozen=True, kw_only=True):
    """`warm-set/<machine>`: the images that a machine is to hold, and which of them it may pull now.

    Written by the leader, on change. An image is its reference as a unit or `images warm` has it, or the digest
    that is pinned for it. `nonce` is of the agent process that it was made for.
    """

    id: str
    nonce: str = ""
    images: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()  # of `images`: those that it is this machine's turn to pull


class Images(Record, frozen=True, kw_only=True):
    """`images/<machine>`, bound to the machine's lease: what it holds of what it should."""

    id: str
    held: tuple[str, ...] = ()  # references of its warm set that it holds
    pulling: dict[str, int] = {}  # reference → percent
    layers: dict[str, str] = {}  # reference that is pulled → `3 of 7 layers`, when that is known
    missing: dict[str, str] = {}  # reference → why it is not here yet


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


class MasterRecord(Record, frozen=True, kw_only=True):
    """`masters/<name>`, bound to that master's lease: it serves."""

    name: str
    nonce: str  # of this master process
    api: tuple[str, ...] = ()  # where its API answers
    archive: bool = False  # it keeps the output of units
    signs: bool = False  # it holds the authority's key
    version: str = ""
    since: float = 0.0
    etcd_user: str = ""  # whose certificate it shows to etcd, "" for none


class JoinRecord(Record, frozen=True, kw_only=True):
    """`join/<id>`, bound to a lease of its time: a join token. Written by the API.

    `secret` is the SHA-256 of what the token carries. `joined`: who joined by it → the SHA-256 of the public key.
    """

    id: str
    secret: str
    role: str
    uses_left: int
    expires_at: float
    metadata: dict[str, str] = {}
    joined: dict[str, str] = {}


class IdentityRecord(Record, frozen=True, kw_only=True):
    """`identities/<role>/<name>`: the certificate that was given last. Written by the API.

    `key` is the SHA-256 of its public key; nothing secret is here. `denied`: masters answer it no more.
    """

    name: str
    role: str
    key: str
    expires_at: float
    denied: bool = False


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


class Protection(Record, frozen=True, kw_only=True):
    """`protection`: whether etcd is to let each identity write its own keys alone. Written by the API."""

    on: bool
    at: float = 0.0


class Role(StrEnum):
    """What a caller of the API may do, in rising order: each may do all that the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether who has this role may do what `needed` may."""
        rising = list(Role)
        return rising.index(self) >= rising.index(needed)


class Token(Record, frozen=True, kw_only=True):
    """`tokens/<id>`: who opens the API with a secret of which this is the digest. Written by the API."""

    id: str
    name: str
    role: Role
    digest: str  # SHA-256 of the secret, which stands nowhere
    created_by: str = ""
    created_at: float = 0.0
    expires_at: float = 0.0  # 0: never


class TokenName(Record, frozen=True, kw_only=True):
    """`token-names/<name>`: written and deleted with its token, so that no two tokens have one name."""

    name: str
    id: str


class Secret(Record, frozen=True, kw_only=True):
    """`secrets/<name>`: a value that units get as a file, sealed to the masters. Written by the API."""

    name: str
    version: int  # raised by every new value
    id: str  # of this value, made at random: a secret that was removed and set anew is another
    key: str  # the masters' public key
    sealed: str
    set_by: str = ""
    set_at: float = 0.0


class Sealed(Record, frozen=True, kw_only=True):
    """`sealed/<machine>/<secret>`: the value, for a machine whose units need it. Written by the leader."""

    machine: str
    name: str
    version: int
    id: str  # of the value
    key: str  # the machine's public key
    sealed: str = ""
    why: str = ""  # it could not be sealed
    tried: str = ""  # the public key of the master that could not


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
    globs on unit names (Go's path.Match). `cpu` in cores, `memory` and `disk` in bytes. `host_ports` are (port,
    protocol). `prefer` and `avoid` are wishes: no machine is refused for them.
    """

    unit: str
    drivers: tuple[str, ...]  # any of these can run it
    machine_id: str = ""
    machine_of: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    metadata_not: tuple[tuple[str, tuple[str, ...]], ...] = ()  # none of the values
    conflicts: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    is_global: bool = False
    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    egress: int = 0  # guaranteed bit/s
    ingress: int = 0
    image: str = ""  # what it pulls, "" for none
    host_ports: tuple[tuple[int, str], ...] = ()
    container_name: str = ""
    demands: Demands = Demands()
    secrets: tuple[str, ...] = ()
    spread: str = ""
    prefer: tuple[tuple[str, tuple[str, ...]], ...] = ()  # as `metadata`
    avoid: tuple[str, ...] = ()  # globs on unit names
    priority: int = 0  # a higher one may evict lower ones when it fits nowhere else
    on_loss: OnLoss = OnLoss.MOVE
    on_loss_after_s: float | None = None  # wait this long, then move; None: for ever
    strict: bool = False
    oneshot: bool = False
