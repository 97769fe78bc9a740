"""Every route of the API in one table: the server adds them, and the OpenAPI description is made of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from unit_master.access.identify import pattern
from unit_master.api import (
    archive,
    audit,
    cluster,
    doctor,
    events,
    figures,
    images,
    joins,
    logs,
    machines,
    metrics,
    net,
    scenes,
    secrets,
    stream,
    tokens,
    units,
)
from unit_master.api.fleet import discovery as fleet_discovery
from unit_master.api.fleet import machines as fleet_machines
from unit_master.api.fleet import state as fleet_state
from unit_master.api.fleet import units as fleet_units
from unit_master.api.parameters import FLAG, LINES, MOMENT, NUMBER, Parameter, up_to
from unit_master.archive.query import MOST_LINES, Found, Query
from unit_master.audit.reading import MOST_LINES as MOST_AUDIT_LINES
from unit_master.audit.reading import PATH as AUDIT_SEARCH
from unit_master.audit.reading import AuditFound, AuditQuery
from unitfleet import fleetapi
from unitfleet.accessapi import AuditTrail, SecretOrder, SecretSet, SecretView, TokenMade, TokenOrder, TokenView
from unitfleet.api import (
    Changed,
    Changes,
    ClusterStatus,
    EndpointView,
    EtcdProtection,
    Explanation,
    Foreseen,
    ImageView,
    LogLine,
    MachineFigures,
    MachineLabels,
    MachineView,
    NetLimit,
    NetView,
    Revision,
    Scenes,
    StreamMessage,
    UnitFile,
    UnitView,
    WarmOrder,
)
from unitfleet.findings import CheckupQuery, Diagnosis, MasterCheckup
from unitfleet.joinapi import (
    JoinAnswer,
    JoinRequest,
    JoinTokenMade,
    JoinTokenView,
    JoinTokenWish,
    RenewAnswer,
    RenewRequest,
)
from unitfleet.model import Happening, Role
from unitfleet.shipped import ShippedLine

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `many`: the answer is a list of `gives`, `bare`
    when it stands in no envelope. `takes` is its body, in JSON; with `lines` an object a line, with `takes_many`
    a list.

    `needs` is the least role that may ask; `does` says for what, after "cannot", where that is more than a viewer.
    `streams`: it may answer for hours, in `media`. `public`: asked without a token. `keyed`: for agents and other
    masters, who show the cluster's key. `own`: a machine's agent may ask it about that machine.
    `fleets`: it is of fleet's API, with fleet's errors, and at fleet's older place, too. `gives` None: an answer
    without a body; `also` is another status of success.
    """

    method: str
    path: str
    handler: Handler
    gives: type | None
    needs: Role = Role.VIEWER
    does: str = ""
    many: bool = False
    query: tuple[Parameter, ...] = ()
    takes: type | None = None
    takes_many: bool = False
    lines: bool = False
    status: int = 200
    media: str = "application/json"
    streams: bool = False
    public: bool = False
    keyed: bool = False
    own: bool = False
    bare: bool = False
    fleets: bool = False
    also: tuple[int, ...] = ()

    @property
    def audited(self) -> bool:
        """Whether it changes something that a user answers for."""
        return self.method != "GET" and not self.keyed


_PAGE = Parameter("nextPageToken", "which page: what the page before it gave")
_FRESH = Parameter("min_revision", "answer from this revision of the store or a later one", NUMBER)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/units",
        units.change,
        Changed,
        needs=Role.OPERATOR,
        does="change units",
        takes=Changes,
        status=202,
    ),
    Route(
        "GET",
        "/v1/units",
        units.list_units,
        UnitView,
        many=True,
        query=(Parameter("name", "only units whose name matches this glob"), _FRESH),
    ),
    Route(
        "GET",
        "/v1/units/{name}",
        units.show,
        UnitFile,
        needs=Role.OPERATOR,
        does="read the file of {name}",
        query=(_FRESH,),
    ),
    Route(
        "DELETE",
        "/v1/units/{name}",
        units.destroy,
        Changed,
        needs=Role.OPERATOR,
        does="destroy {name}",
        status=202,
    ),
    Route("GET", "/v1/explain/{name}", units.explain_unit, Explanation, query=(_FRESH,)),
    Route("GET", "/v1/machines", machines.list_machines, MachineView, many=True, query=(_FRESH,)),
    Route(
        "POST",
        "/v1/machines/{machine}/lost",
        machines.declare_lost,
        Revision,
        needs=Role.ADMIN,
        does="declare machine {machine} lost",
        status=202,
    ),
    Route(
        "POST",
        "/v1/machines/{machine}/rm",
        machines.remove,
        Revision,
        needs=Role.ADMIN,
        does="remove machine {machine}",
        status=202,
    ),
    Route(
        "POST",
        "/v1/machines/{machine}/deny",
        machines.deny,
        Revision,
        needs=Role.ADMIN,
        does="shut out machine {machine}",
        status=202,
    ),
    Route(
        "POST",
        "/v1/machines/{machine}/allow",
        machines.allow,
        Revision,
        needs=Role.ADMIN,
        does="let in machine {machine} again",
        status=202,
    ),
    Route(
        "POST",
        "/v1/machines/{machine}/drain",
        machines.drain,
        Revision,
        needs=Role.OPERATOR,
        does="drain machine {machine}",
        status=202,
        own=True,
    ),
    Route(
        "GET",
        "/v1/machines/{machine}/labels",
        machines.preview_labels,
        Foreseen,
        query=(Parameter("set", "metadata as k=v,k2=v2; an empty value takes a key away"), _FRESH),
    ),
    Route(
        "POST",
        "/v1/machines/{machine}/labels",
        machines.label,
        Revision,
        needs=Role.OPERATOR,
        does="label machine {machine}",
        takes=MachineLabels,
        status=202,
    ),
    Route(
        "POST",
        "/v1/machines/{machine}/{order}",
        machines.order,
        Revision,
        needs=Role.OPERATOR,
        does="{order} machine {machine}",
        status=202,
    ),
    Route(
        "GET",
        "/v1/events",
        events.list_events,
        Happening,
        many=True,
        query=(
            Parameter("unit", "only what happened to this unit"),
            Parameter("machine", "only what happened on this machine"),
            Parameter("limit", "at most so many, the latest (100)", up_to(events.MOST)),
            _FRESH,
        ),
    ),
    Route(
        "GET",
        "/v1/logs/{name}",
        logs.logs,
        LogLine,
        needs=Role.OPERATOR,
        does="read the output of {name}",
        query=(
            Parameter("lines", "the last so many (100; all when something else bounds them)", LINES),
            Parameter("follow", "true: go on with what is written from now on", FLAG),
            Parameter("machine", "only lines written on this machine"),
            Parameter("since", "not older than this, seconds since 1970; wherever the unit was then", MOMENT),
            Parameter("until", "not newer than this", MOMENT),
            Parameter("grep", "only lines in which this regular expression is found"),
            Parameter("join", "true: a stack trace is one line", FLAG),
            Parameter("previous", "true: of the last run that has ended", FLAG),
            Parameter("epoch", "only lines by this placement", NUMBER),
            Parameter("after_seq", "only lines behind this number of theirs", NUMBER),
            _FRESH,
        ),
        media="application/x-ndjson",
        streams=True,
    ),
    Route(
        "GET",
        "/v1/images",
        images.list_images,
        ImageView,
        many=True,
        query=(Parameter("image", "only this reference or digest"), _FRESH),
    ),
    Route(
        "POST",
        "/v1/images/warm",
        images.warm,
        Revision,
        needs=Role.OPERATOR,
        does="hold {image} warm",
        takes=WarmOrder,
        status=202,
    ),
    Route(
        "POST",
        "/v1/images/unwarm",
        images.unwarm,
        Revision,
        needs=Role.OPERATOR,
        does="unwarm {image}",
        takes=WarmOrder,
        status=202,
    ),
    Route(
        "GET",
        "/v1/net",
        net.list_net,
        NetView,
        many=True,
        query=(Parameter("unit", "only units whose name matches this glob"), _FRESH),
    ),
    Route("GET", "/v1/scenes", scenes.list_scenes, Scenes, query=(_FRESH,)),
    Route(
        "GET",
        "/v1/scenes/{name}",
        scenes.show,
        Scenes,
        needs=Role.OPERATOR,
        does="read what {name} left",
        query=(_FRESH,),
    ),
    Route(
        "POST",
        "/v1/scenes/{name}/rm",
        scenes.remove,
        Scenes,
        needs=Role.OPERATOR,
        does="remove what {name} left",
        query=(_FRESH,),
    ),
    Route(
        "POST",
        "/v1/net/{name}",
        net.limit,
        Changed,
        needs=Role.OPERATOR,
        does="limit {name}",
        takes=NetLimit,
        status=202,
    ),
    Route(
        "GET",
        "/v1/figures",
        figures.figures,
        MachineFigures,
        query=(Parameter("once", "true: one line for each machine, and the end", FLAG),),
        media="application/x-ndjson",
        streams=True,
    ),
    Route(
        "GET",
        "/v1/logs",
        archive.search,
        LogLine,
        needs=Role.OPERATOR,
        does="search the output of units",
        query=(
            Parameter("grep", "only lines in which this regular expression matches"),
            Parameter("since", "not older than this, seconds since 1970", MOMENT),
            Parameter("until", "not newer than this", MOMENT),
            Parameter("unit", "only units whose name matches this glob"),
            Parameter("machine", "only lines written on this machine"),
            Parameter("limit", "at most so many, the newest (1000)", up_to(MOST_LINES)),
        ),
        media="application/x-ndjson",
    ),
    Route(
        "POST",
        "/v1/ingest/logs",
        archive.ingest,
        archive.Ingested,
        needs=Role.ADMIN,
        does="store lines",
        takes=ShippedLine,
        lines=True,
        keyed=True,
    ),
    Route(
        "POST",
        "/v1/archive/search",
        archive.search_here,
        Found,
        needs=Role.ADMIN,
        does="search here",
        takes=Query,
        keyed=True,
    ),
    Route(
        "GET",
        "/v1/doctor",
        doctor.show,
        Diagnosis,
        needs=Role.OPERATOR,
        does="examine the cluster",
    ),
    Route(
        "POST",
        "/v1/checkup",
        doctor.checkup,
        MasterCheckup,
        needs=Role.ADMIN,
        does="ask for another master how this one is",
        takes=CheckupQuery,
        keyed=True,
    ),
    Route("GET", "/v1/cluster", cluster.show, ClusterStatus, query=(_FRESH,)),
    Route("POST", "/v1/cluster/hold", cluster.hold, Revision, needs=Role.ADMIN, does="hold the brake", status=202),
    Route(
        "POST",
        "/v1/cluster/release",
        cluster.release,
        Revision,
        needs=Role.ADMIN,
        does="release the brake",
        status=202,
    ),
    Route(
        "POST",
        "/v1/cluster/protect-etcd",
        cluster.protect_etcd,
        EtcdProtection,
        needs=Role.ADMIN,
        does="protect etcd",
    ),
    Route(
        "POST",
        "/v1/cluster/unprotect-etcd",
        cluster.unprotect_etcd,
        EtcdProtection,
        needs=Role.ADMIN,
        does="take the protection from etcd",
    ),
    Route(
        "GET",
        "/v1/endpoints",
        units.list_endpoints,
        EndpointView,
        many=True,
        query=(Parameter("unit", "only units whose name matches this glob"), _FRESH),
        streams=True,
    ),
    Route(
        "GET",
        "/v1/stream",
        stream.stream,
        StreamMessage,
        query=(
            Parameter("units", "only these units, separated by commas"),
            Parameter("since", "begin no earlier than this revision; Last-Event-ID does the same", NUMBER),
        ),
        media="text/event-stream",
        streams=True,
    ),
    Route(
        "POST",
        "/v1/tokens",
        tokens.create,
        TokenMade,
        needs=Role.ADMIN,
        does="create token {name}",
        takes=TokenOrder,
        status=201,
    ),
    Route(
        "GET",
        "/v1/tokens",
        tokens.list_tokens,
        TokenView,
        needs=Role.ADMIN,
        does="list tokens",
        many=True,
        query=(_FRESH,),
    ),
    Route("DELETE", "/v1/tokens/{token}", tokens.remove, Revision, needs=Role.ADMIN, does="remove token {token}"),
    Route(
        "POST",
        "/v1/secrets",
        secrets.set_secret,
        SecretSet,
        needs=Role.ADMIN,
        does="set secret {name}",
        takes=SecretOrder,
        status=201,
    ),
    Route(
        "GET",
        "/v1/secrets",
        secrets.list_secrets,
        SecretView,
        needs=Role.OPERATOR,
        does="list secrets",
        many=True,
        query=(_FRESH,),
    ),
    Route(
        "DELETE",
        "/v1/secrets/{secret}",
        secrets.remove,
        Revision,
        needs=Role.ADMIN,
        does="remove secret {secret}",
    ),
    Route(
        "GET",
        "/v1/audit",
        audit.search,
        AuditTrail,
        needs=Role.ADMIN,
        does="read the audit log",
        query=(
            Parameter("since", "not older than this, seconds since 1970", MOMENT),
            Parameter("caller", "only what this caller asked for"),
            Parameter("unit", "only what may concern units whose name matches this glob"),
            Parameter("limit", "at most so many, the newest (100)", up_to(MOST_AUDIT_LINES)),
        ),
    ),
    Route(
        "POST",
        AUDIT_SEARCH,
        audit.search_here,
        AuditFound,
        needs=Role.ADMIN,
        does="search the audit log here",
        takes=AuditQuery,
        keyed=True,
    ),
    Route(
        "POST",
        "/v1/join-tokens",
        joins.make_token,
        JoinTokenMade,
        needs=Role.ADMIN,
        does="make a join token",
        takes=JoinTokenWish,
        status=201,
    ),
    Route(
        "GET",
        "/v1/join-tokens",
        joins.list_tokens,
        JoinTokenView,
        needs=Role.ADMIN,
        does="list join tokens",
        many=True,
    ),
    Route(
        "DELETE",
        "/v1/join-tokens/{token}",
        joins.remove_token,
        Revision,
        needs=Role.ADMIN,
        does="remove join token {token}",
        status=202,
    ),
    Route("GET", "/v1/ca", joins.show_ca, str, media=joins.CA_MEDIA, public=True),
    Route("POST", "/v1/join", joins.join, JoinAnswer, does="join as {name}", takes=JoinRequest, public=True),
    Route(
        "POST",
        "/v1/renew",
        joins.renew,
        RenewAnswer,
        needs=Role.ADMIN,
        does="renew a certificate",
        takes=RenewRequest,
    ),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/units",
        fleet_units.list_units,
        fleetapi.UnitPage,
        needs=Role.OPERATOR,
        does="read unit files",
        query=(_PAGE,),
        fleets=True,
    ),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/units/{{name}}",
        fleet_units.show,
        fleetapi.Unit,
        needs=Role.OPERATOR,
        does="read the file of {name}",
        fleets=True,
    ),
    Route(
        "PUT",
        f"{fleetapi.PREFIX}/units/{{name}}",
        fleet_units.put,
        None,
        needs=Role.OPERATOR,
        does="set {name}",
        takes=fleetapi.Unit,
        status=201,
        also=(204,),
        fleets=True,
    ),
    Route(
        "DELETE",
        f"{fleetapi.PREFIX}/units/{{name}}",
        fleet_units.destroy,
        None,
        needs=Role.OPERATOR,
        does="destroy {name}",
        status=204,
        fleets=True,
    ),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/state",
        fleet_state.list_states,
        fleetapi.StatePage,
        query=(
            Parameter("unitName", "only what is seen of this unit"),
            Parameter("machineID", "only what this machine sees"),
            _PAGE,
        ),
        fleets=True,
    ),
    Route("GET", f"{fleetapi.PREFIX}/state/{{name}}", fleet_state.show, fleetapi.State, fleets=True),
    Route(
        "GET",
        f"{fleetapi.PREFIX}/machines",
        fleet_machines.list_machines,
        fleetapi.MachinePage,
        query=(_PAGE,),
        fleets=True,
    ),
    Route(
        "PATCH",
        f"{fleetapi.PREFIX}/machines",
        fleet_machines.patch,
        None,
        needs=Role.OPERATOR,
        does="label machines",
        takes=fleetapi.MetadataOp,
        takes_many=True,
        status=204,
        fleets=True,
    ),
    Route("GET", f"{fleetapi.PREFIX}/discovery", fleet_discovery.show, dict, fleets=True),
    Route("GET", "/v1/version", cluster.show_version, cluster.Version),
    Route("GET", "/v1/targets", metrics.targets, metrics.Targets, many=True, bare=True),
    Route("GET", "/metrics", metrics.metrics, str, media="text/plain"),
    Route("GET", "/healthz", cluster.healthy, cluster.Health, public=True),
    Route("GET", "/readyz", cluster.ready, cluster.Health, public=True),
)

ALIASES = tuple(
    (route, fleetapi.ALIAS + route.path.removeprefix(fleetapi.PREFIX)) for route in ROUTES if route.fleets
)
"""Routes of fleet's API, and where else each stands."""

_BY_PATTERN = {(route.method, route.path): route for route in ROUTES}
_BY_PATTERN |= {(route.method, path): route for route, path in ALIASES}


def route_of(request: web.Request) -> Route | None:
    """Return the route of a request, None when it has none in the table."""
    return _BY_PATTERN.get((request.method, pattern(request)))
