"""Every route of the API in one table: the server adds them, and the OpenAPI description is made of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from unit_master.api import cluster, events, logs, machines, stream, units
from unitfleet.api import (
    Changed,
    Changes,
    ClusterStatus,
    EndpointView,
    Explanation,
    LogLine,
    MachineView,
    Revision,
    StreamMessage,
    UnitFile,
    UnitView,
)
from unitfleet.model import Happening

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `query` maps each parameter to what it does; `many`: the answer is a list of `gives`.

    `streams`: it may answer for hours, in `media`. `public`: asked without a token.
    """

    method: str
    path: str
    handler: Handler
    gives: type
    many: bool = False
    query: tuple[tuple[str, str], ...] = ()
    takes: type | None = None
    status: int = 200
    media: str = "application/json"
    streams: bool = False
    public: bool = False


_FRESH = ("min_revision", "answer from this revision of the store or a later one")

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/units", units.change, Changed, takes=Changes, status=202),
    Route(
        "GET",
        "/v1/units",
        units.list_units,
        UnitView,
        many=True,
        query=(("name", "only units whose name matches this glob"), _FRESH),
    ),
    Route("GET", "/v1/units/{name}", units.show, UnitFile, query=(_FRESH,)),
    Route("DELETE", "/v1/units/{name}", units.destroy, Changed, status=202),
    Route("GET", "/v1/explain/{name}", units.explain_unit, Explanation, query=(_FRESH,)),
    Route("GET", "/v1/machines", machines.list_machines, MachineView, many=True, query=(_FRESH,)),
    Route("POST", "/v1/machines/{machine}/{order}", machines.order, Revision, status=202),
    Route(
        "GET",
        "/v1/events",
        events.list_events,
        Happening,
        many=True,
        query=(
            ("unit", "only what happened to this unit"),
            ("machine", "only what happened on this machine"),
            ("limit", "at most so many, the latest (100)"),
            _FRESH,
        ),
    ),
    Route(
        "GET",
        "/v1/logs/{name}",
        logs.logs,
        LogLine,
        query=(
            ("lines", "the last so many (100)"),
            ("follow", "true: go on with what is written from now on"),
            ("machine", "the copy on this machine"),
            _FRESH,
        ),
        media="application/x-ndjson",
        streams=True,
    ),
    Route("GET", "/v1/cluster", cluster.show, ClusterStatus, query=(_FRESH,)),
    Route("POST", "/v1/cluster/hold", cluster.hold, Revision, status=202),
    Route("POST", "/v1/cluster/release", cluster.release, Revision, status=202),
    Route(
        "GET",
        "/v1/endpoints",
        units.list_endpoints,
        EndpointView,
        many=True,
        query=(("unit", "only units whose name matches this glob"), _FRESH),
        streams=True,
    ),
    Route(
        "GET",
        "/v1/stream",
        stream.stream,
        StreamMessage,
        query=(
            ("units", "only these units, separated by commas"),
            ("since", "begin no earlier than this revision; Last-Event-ID does the same"),
        ),
        media="text/event-stream",
        streams=True,
    ),
    Route("GET", "/v1/version", cluster.show_version, cluster.Version),
    Route("GET", "/healthz", cluster.healthy, cluster.Health, public=True),
    Route("GET", "/readyz", cluster.ready, cluster.Health, public=True),
)
