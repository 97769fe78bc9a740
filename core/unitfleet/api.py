"""What the API takes and answers: shared by the master that serves it and the clients that speak it.

JSON over HTTP under `/v1`. Lists answer `{"api", "rev", "items": […]}` as of one revision; errors answer
`ErrorBody` with the HTTP status of docs/api.md. Unit names in paths are percent-encoded.

    POST   /v1/units                       Changes → 202 Changed: many units in one call, each with its own result
    GET    /v1/units?name=GLOB&min_revision=R    items: UnitView
    GET    /v1/units/NAME                  UnitView + text of its file
    DELETE /v1/units/NAME                  202 Changed (target destroyed)
    GET    /v1/machines                    items: MachineView
    POST   /v1/machines/M/{cordon|uncordon|drain|undrain|lost|rm}    202 Revision
    GET    /v1/explain/NAME                Explanation
    GET    /v1/events?unit=&machine=&limit=      items: Happening (model)
    GET    /v1/logs/NAME?lines=&follow=&machine=   lines of JSON LogLine
    GET    /v1/cluster                     ClusterStatus
    POST   /v1/cluster/{hold|release}      202 Revision
    GET    /v1/endpoints?unit=NAME         items: EndpointView; with Accept: text/event-stream a stream of them
    GET    /v1/stream?units=A,B&since=R    server-sent events: `id:` revision, `data:` StreamMessage
    GET    /v1/version, /v1/openapi.json, /healthz, /readyz
"""

from __future__ import annotations

from typing import Any

import msgspec

from unitfleet.model import Capacity, Happening, Pending, Port, TargetState

API = "unitfleet/v1"


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One wish. `text` submits (refused if another text stands under the name, unless `replace`).

    `file` is how the user calls the text's file: it stands in messages about it.
    """

    name: str
    text: str | None = None
    replace: bool = False
    target: TargetState | None = None
    restart: bool = False
    if_exists: bool = False  # an unknown unit is no error (destroy of a glob)
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
    """One line that a unit wrote: when (seconds since 1970), to stdout or stderr, on the machine of which name."""

    at: float
    stream: str
    text: str
    machine: str = ""


class UnitFile(msgspec.Struct, frozen=True, kw_only=True):
    """A unit with the text it was submitted with."""

    unit: UnitView
    text: str


class Items(msgspec.Struct, frozen=True, kw_only=True):
    """Any list that the API or `-o json` answers."""

    api: str = API
    rev: int
    items: tuple[Any, ...]
