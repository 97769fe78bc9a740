"""What the API takes and answers: shared by the master that serves it and the clients that speak it.

JSON over HTTP under `/v1`. Lists answer `{"api", "rev", "items": […]}` as of one revision; errors answer
`ErrorBody` with the HTTP status of docs/api.md. Unit names in paths are percent-encoded.
Tokens, secrets and the audit log are in `unitfleet.accessapi`, identities in `unitfleet.joinapi`.

    POST   /v1/units                       Changes → 202 Changed: many units in one call, each with its own result
    GET    /v1/units?name=GLOB&min_revision=R    items: UnitView
    GET    /v1/units/NAME                  UnitView + text of its file
    DELETE /v1/units/NAME                  202 Changed (target destroyed)
    GET    /v1/machines                    items: MachineView
    GET    /v1/machines/M/labels?set=k=v,k2=     Foreseen: which units would move, were this set
    POST   /v1/machines/M/labels           MachineLabels → 202 Revision
    POST   /v1/machines/M/{cordon|uncordon|drain|undrain|lost|rm|deny|allow}    202 Revision
    GET    /v1/explain/NAME                Explanation
    GET    /v1/events?unit=&machine=&limit=      items: Happening (model)
    GET    /v1/logs/NAME?lines=&follow=&machine=&…  lines of JSON LogLine (`unitfleet.logquery`)
    GET    /v1/logs?grep=RE&since=&until=&unit=GLOB&machine=&limit=   lines of JSON LogLine, the newest, in order
    POST   /v1/ingest/logs                 lines of JSON ShippedLine (agents) → Ingested
    GET    /v1/images?image=REF            items: ImageView
    POST   /v1/images/{warm|unwarm}        WarmOrder → 202 Revision
    GET    /v1/scenes                      Scenes: failed copies that were kept, without their output
    GET    /v1/scenes/NAME                 Scenes, with output and the driver's account
    POST   /v1/scenes/NAME/rm              Scenes that were removed
    GET    /v1/cluster                     ClusterStatus
    POST   /v1/cluster/{hold|release}      202 Revision
    GET    /v1/endpoints?unit=NAME         items: EndpointView; with Accept: text/event-stream a stream of them
    GET    /v1/stream?units=A,B&since=R    server-sent events: `id:` revision, `data:` StreamMessage
    GET    /v1/net?unit=GLOB               items: NetView
    POST   /v1/net/NAME                    NetLimit → 202 Changed
    GET    /v1/figures?once=               lines of JSON MachineFigures
    GET    /v1/version, /v1/openapi.json, /healthz, /readyz
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from unitfleet.model import Bandwidth, Capacity, Cause, Happening, Pending, Port, TargetState

API = "unitfleet/v1"

AGENT_HEADER = "Unitfleet-Agent"
"""Says, beside the cluster's key, which agent asks: `<machine>/<nonce of its presence>`."""


Rate = Annotated[int, msgspec.Meta(ge=0, le=10**13)]


class NetLimit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A unit's bandwidth in place of what its text says, without a restart: bit/s, `burst` in bytes.

    None leaves what holds now, 0 takes it away; `reset` brings back what the text says.
    """

    egress: Rate | None = None
    ingress: Rate | None = None
    egress_limit: Rate | None = None
    ingress_limit: Rate | None = None
    burst: Rate | None = None
    reset: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One wish. `text` submits (refused if another text stands under the name, unless `replace`).

    `file` is how the user calls the text's file: it stands in messages about it. `bandwidth` restarts nothing.
    """

    name: str
    text: str | None = None
    replace: bool = False
    target: TargetState | None = None
    restart: bool = False
    if_exists: bool = False  # an unknown unit is no error (destroy of a glob)
    bandwidth: NetLimit | None = None
    file: str = ""


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of wishes, each carried out for itself."""

    changes: tuple[Change, ...]


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """Every error: `code` is a word for programs, `message` and `hint` are for people."""

    code: str  # invalid_name invalid_unit not_found refused conflict unavailable unknown_outcome full denied …
    message: str
    hint: str = ""
    problems: tuple[str, ...] = ()  # file:line: …, for invalid_unit


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one wish: `error`, or the unit's new target; `changed` is False when it stood so already."""

    name: str
    target: TargetState | None = None
    changed: bool = False
    created: bool = False
    warnings: tuple[str, ...] = ()
    error: ErrorBody | None = None


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `Changes`: `rev` is the revision of the last write, to follow from."""

    api: str = API
    rev: int
    items: tuple[Result, ...]


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order that has nothing else to say: the revision it stands at."""

    rev: int


class EtcdProtection(msgspec.Struct, frozen=True, kw_only=True):
    """Whether etcd lets each identity write its own keys alone, and who has a user there.

    `others` may do everything in etcd and were made by nobody here. `holds`: this version of etcd can't be talked
    out of it. `changed`: it was the other way round before.
    """

    rev: int
    on: bool
    changed: bool
    machines: int
    masters: tuple[str, ...]
    others: tuple[str, ...] = ()
    version: str = ""
    holds: bool = False


class CopyView(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's copy of a unit: the leader's order beside what the agent reports."""

    machine: str  # id
    machine_name: str
    machine_status: str  # ready suspect lost
    wanted: str  # loaded launched gone, "" for a copy without a placement
    epoch: int
    reason: str  # why it was placed there
    phase: str  # CopyPhase, "" before the first report
    load: str = ""
    active: str = ""
    sub: str = ""
    health: str = ""
    address: str = ""
    ports: tuple[Port, ...] = ()
    driver: str = ""
    copy_id: str = ""
    pid: int = 0
    image: str = ""
    since: float = 0.0
    restarts: int = 0
    cause: Cause = Cause.NONE
    progress: int = -1
    message: str = ""
    current: bool = True  # reports the present incarnation, spec and restart number


class UnitView(msgspec.Struct, frozen=True, kw_only=True):
    """A unit: what is wanted, where it is, what is seen of it.

    phase, in the order a start goes through: pending · placed · pulling · starting · running, or restarting ·
    finished · failed · waiting-for-machine; and stopping · loaded · inactive · destroying.
    """

    name: str
    target: TargetState
    phase: str
    settled: bool  # it is as wanted, or has failed: nothing more will come by itself
    ok: bool  # it is as wanted
    why: str  # one sentence when it is not as wanted, "" else
    since: float
    spec: str
    incarnation: str
    restart: int
    is_global: bool
    is_template: bool
    description: str
    rev: int  # the revision this unit, its placement or its state last changed at
    copies: tuple[CopyView, ...] = ()  # its place first, then those that are leaving
    pending: Pending | None = None


class MachineView(msgspec.Struct, frozen=True, kw_only=True):
    """A machine: status is ready, suspect or lost."""

    id: str
    name: str
    status: str
    address: str
    metadata: dict[str, str]
    cordoned: bool
    drained: bool
    drivers: tuple[str, ...]
    versions: dict[str, str]
    capacity: Capacity
    reserved: Capacity
    used: Capacity
    units: int
    load: float = 0.0
    since: float = 0.0
    reason: str = ""
    closed: str = ""  # why it takes no new units now, by its agent's word


class MachineLabels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metadata to set on a machine; an empty value takes a key away, what is not named stays."""

    metadata: dict[str, str]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a unit: from `source` to `target`, both by name.

    Without a `target` it only leaves; without a `source` it is placed; the same twice: it should leave and stays.
    """

    unit: str
    source: str = ""
    target: str = ""
    why: str = ""


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of a machine would lead to, by the leader's own code; `metadata` is what it would have."""

    rev: int
    machine: str
    machine_name: str
    metadata: dict[str, str]
    moves: tuple[Move, ...] = ()


class RuleVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine answered: `refused_by` and `why` are "" when it would take the unit."""

    machine: str
    machine_name: str
    refused_by: str
    why: str
    score: tuple[str, ...] = ()  # the parts of its score, in words, best first compared
    chosen: bool = False


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a unit is where it is, or nowhere, by the scheduler's own code on the present view."""

    name: str
    rev: int
    summary: str
    machines: tuple[RuleVerdict, ...]
    hint: str = ""
    unit: UnitView | None = None


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the cluster is. `attention`: every unit that is not as wanted, why and since when."""

    id: str
    rev: int
    leader: str
    leader_since: float
    masters: tuple[str, ...]
    store_version: str
    store_size: int
    machines: dict[str, int]  # by status
    units: dict[str, int]  # by phase
    brake: str  # off, holding, stopped, released
    brake_why: str
    suspect: tuple[str, ...]
    lost: tuple[str, ...]
    attention: tuple[UnitView, ...]
    unreadable: tuple[str, ...] = ()  # what stands in the store and can't be read: it is left alone


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """Address and ports of one running copy, for proxies and DNS."""

    unit: str
    machine: str
    address: str
    ports: tuple[Port, ...]
    epoch: int


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of the cluster: what changed of the units asked for, `gone` names those that are no more.

    The first message of a stream without `since` is a `snapshot` of them all.
    """

    rev: int
    snapshot: bool = False
    units: tuple[UnitView, ...] = ()
    gone: tuple[str, ...] = ()
    machines: tuple[MachineView, ...] = ()
    events: tuple[Happening, ...] = ()


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line that a unit wrote: when (seconds since 1970), to stdout or stderr, on the machine of which name.

    A search also says of which `unit`, of which of its epochs, with which number on its machine, and for a line of
    a file in the container its path.
    """

    at: float
    stream: str
    text: str
    machine: str = ""
    unit: str = ""
    epoch: int = 0
    seq: int = 0
    file: str = ""


class UnitFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy uses, as of `at`. Totals count since the copy started; -1: this machine can't tell.

    `cpu` is cores over the last interval, `egress` and `ingress` bit/s over it; memory in bytes, the working set
    being what can't be dropped (cAdvisor's word). `id` is the container's, `cgroup` its path.
    """

    unit: str
    at: float
    driver: str
    id: str = ""
    cgroup: str = ""
    image: str = ""
    started_at: float = 0.0
    cpu: float = 0.0
    cpu_s: float = 0.0  # total
    cpu_limit: float = 0.0  # cores, 0: none
    throttled_s: float = 0.0  # total
    memory: int = 0  # working set
    memory_usage: int = 0
    memory_limit: int = 0  # 0: none
    read_bytes: int = 0  # total
    write_bytes: int = 0
    processes: int = 0
    open_files: int = -1  # of the process that has the most
    open_files_limit: int = 0
    oom_kills: int = 0
    restarts: int = 0
    egress: int = -1
    ingress: int = -1
    sent_bytes: int = -1  # total
    received_bytes: int = -1
    sent_dropped: int = 0  # packets
    received_dropped: int = 0
    egress_limit: int = 0  # bit/s in force, 0: none
    ingress_limit: int = 0
    pressure: dict[str, float] = {}  # cpu, memory, io: percent of the last minute


class MachineFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine and its units use, as of `at`: one line of `/v1/figures`; `why` it tells nothing, or ""."""

    machine: str  # id
    name: str
    at: float
    capacity: Capacity
    used: Capacity  # cores, bytes, bytes, bit/s over the last interval
    load: float = 0.0
    pressure: dict[str, float] = {}  # cpu, memory, io: percent of the last minute
    units: tuple[UnitFigures, ...] = ()
    why: str = ""


class UnitNet(msgspec.Struct, frozen=True, kw_only=True):
    """One unit's bandwidth on one machine: what is wanted of it in bit/s (0: not said), and what is in force.

    `how` is `veth+ifb` (a container with a network of its own) or `cgroup` (host network and processes, egress
    only), "" for a unit that nothing can be done for. `in_force` is True when all that is wanted stands; else
    `trouble` says why not. `interface` is the container's own on the host, or the uplink. Sent is egress, received
    is ingress: bytes and dropped packets since its classes were made, backlog in bytes now; -1: not counted.
    """

    unit: str
    machine: str  # name
    interface: str = ""
    how: str = ""
    egress: int = 0
    egress_limit: int = 0
    ingress: int = 0
    ingress_limit: int = 0
    in_force: bool = False
    trouble: str = ""
    sent_bytes: int = -1
    sent_dropped: int = -1
    sent_backlog: int = -1
    received_bytes: int = -1
    received_dropped: int = -1
    received_backlog: int = -1


class NetLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/net` of an agent: bandwidth on this machine as of `at`.

    `uplink` is the interface to the network with its capacity in bit/s (0: not known), `shaped` whether this
    agent's qdisc stands on it; `trouble` is what can't be done for the machine as a whole, "" for nothing.
    """

    machine: str  # id
    name: str
    at: float
    uplink: str = ""
    egress: int = 0
    ingress: int = 0
    shaped: bool = False
    trouble: str = ""
    units: tuple[UnitNet, ...] = ()


class WarmOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that machines are to hold, or no longer: those with all of the metadata `where`, {} for all."""

    image: str
    where: dict[str, str] = {}


class ImageOnMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of an image's: state is held, pulling, missing or waiting (for its turn).

    `why` says why it is not here, or of a pull how many layers are.
    """

    machine: str
    machine_name: str
    state: str
    percent: int = -1
    why: str = ""


class ImageView(msgspec.Struct, frozen=True, kw_only=True):
    """An image that machines are to hold: for `units`, `ordered` by `images warm`, or by settings of machines.

    `image` is what is pulled: a reference, or the digest that is pinned; `names` are its references in unit texts.
    """

    image: str
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    ordered: bool = False
    where: dict[str, str] = {}
    by_settings: bool = False  # machines' own settings name it
    machines: tuple[ImageOnMachine, ...] = ()


class NetView(msgspec.Struct, frozen=True, kw_only=True):
    """A unit's bandwidth: what is wanted of it, what the leader ordered of a machine, and what stands there.

    `set_live`: what is wanted was set by `net limit`, in place of its text's. `in_force` is what the machine's
    agent says; None when it says nothing, `why` tells why. Without a machine the unit is placed nowhere.
    """

    unit: str
    wanted: Bandwidth
    set_live: bool = False
    machine: str = ""  # id
    machine_name: str = ""
    ordered: Bandwidth = Bandwidth()
    in_force: UnitNet | None = None
    why: str = ""


class HealthOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one health check said, at `at` seconds since 1970."""

    at: float
    ok: bool
    text: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that failed for good and was kept as it was, for a look (`OnFailure=keep`).

    `in_place`: it still stands where it failed; else it was set aside, and `where` is its container's name or its
    directory on the machine. `exit_code` None: not known. `size` is bytes beside its image. Times are seconds
    since 1970. A list of scenes leaves out `lines` and `inspect`.
    """

    id: str
    unit: str
    driver: str
    copy_id: str
    at: float
    machine: str = ""  # id
    machine_name: str = ""
    where: str = ""
    in_place: bool = True
    epoch: int = 0
    incarnation: str = ""
    spec: str = ""
    image: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    cause: Cause = Cause.NONE
    message: str = ""
    restarts: int = 0
    started: float = 0.0
    finished: float = 0.0
    size: int = 0
    health: tuple[HealthOutput, ...] = ()
    lines: tuple[LogLine, ...] = ()
    inspect: dict[str, Any] = {}  # the driver's own account, without any value of the environment


class Scenes(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/scenes`: `unasked` are the machines that could not be asked, each with why."""

    api: str = API
    rev: int
    items: tuple[Scene, ...]
    unasked: tuple[str, ...] = ()


class UnitFile(msgspec.Struct, frozen=True, kw_only=True):
    """A unit with the text it was submitted with."""

    unit: UnitView
    text: str


class Items(msgspec.Struct, frozen=True, kw_only=True):
    """Any list that the API or `-o json` answers."""

    api: str = API
    rev: int
    items: tuple[Any, ...]
