"""The OpenAPI description of the API, made of the route table and the types of its answers."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

import msgspec

from unit_master.answers import STATUS
from unit_master.api.route import Route
from unit_master.api.routes import ROUTES
from unitfleet.api import ErrorBody
from unitfleet.fleetapi import Error

_REFERENCE = "#/components/schemas/{name}"
_RETRY_AFTER = {"description": "in how many seconds to ask again", "schema": {"type": "integer", "minimum": 1}}
EVENTS = "text/event-stream"

_ANYBODY = frozenset({400, 413, 500, 502, 503, 504})
"""What any request may be answered, whoever asks."""

_KNOWN = frozenset({401, 403, 404, 409, 421, 429})
"""What else, where it is looked who asks and for what."""


def describe() -> dict[str, Any]:
    """Return the description (OpenAPI 3.1)."""
    types = {kind for route in ROUTES for kind in (route.gives, route.takes) if kind is not None} | {
        ErrorBody,
        Error,
    }
    ordered = sorted(types, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    by_type = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Unitfleet", "version": version("unitfleet")},
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                _name(status, fleets=fleets): _error(status, by_type[Error if fleets else ErrorBody])
                for status in set(STATUS.values())
                for fleets in (False, True)
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def statuses(route: Route) -> frozenset[int]:
    """Return the statuses of errors that a route may answer."""
    found = set(_ANYBODY)
    if not route.public:
        found |= _KNOWN
    if route.method != "GET":
        found |= {401, 409, 429, 507}
    if route.public and route.path.startswith("/v1/"):
        found.add(409)  # of a cluster without identities
    if route.takes is not None:
        found.add(415)
    return frozenset(found)


def _operation(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    parameters += [
        {"name": each.name, "in": "query", "description": each.does, "schema": each.form} for each in route.query
    ]
    operation: dict[str, Any] = {
        "operationId": f"{'fleet_' * route.fleets}{route.handler.__module__.rpartition('.')[2]}_"
        + route.handler.__name__,
        "summary": (route.handler.__doc__ or "").splitlines()[0],
        "parameters": parameters,
        "responses": {
            **{str(status): _done(route, schemas) for status in (route.status, *route.also)},
            **{
                str(status): {"$ref": f"#/components/responses/{_name(status, fleets=route.fleets)}"}
                for status in sorted(statuses(route))
            },
        },
    }
    if route.takes is not None:
        media = "application/x-ndjson" if route.lines else "application/json"
        taken = schemas[route.takes]
        body = {"type": "array", "items": taken} if route.takes_many else taken
        operation["requestBody"] = {"required": True, "content": {media: {"schema": body}}}
    if route.public:
        operation["security"] = []
    return operation


def _done(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    if route.gives is None:
        return {"description": "done"}
    schema = _answer(route, schemas[route.gives])
    return {
        "description": "done",
        "content": {media: {"schema": _given(media, schema)} for media in _media(route)},
    }


def _media(route: Route) -> tuple[str, ...]:
    """Return what an answer may be; a list that streams is one of events, for who asks for that."""
    return (route.media, EVENTS) if route.streams and route.many else (route.media,)


def _given(media: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Describe what an answer holds: of lines each line, of events each event, whose data is JSON."""
    if media != EVENTS:
        return answer
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": answer}
    return {"type": "object", "required": ["data"], "properties": {"id": {"type": "string"}, "data": data}}


def _name(status: int, *, fleets: bool) -> str:
    return f"{'Fleet' * fleets}Error{status}"


def _error(status: int, schema: dict[str, Any]) -> dict[str, Any]:
    """Describe an error by the words that its body may have for it."""
    words = sorted(code for code, known in STATUS.items() if known == status)
    described: dict[str, Any] = {
        "description": f"an error, with a word for programs ({', '.join(words)}) and a hint for people",
        "content": {"application/json": {"schema": schema}},
    }
    if status == STATUS["too_many"]:
        described["headers"] = {"Retry-After": _RETRY_AFTER}
    return described


def _answer(route: Route, schema: dict[str, Any]) -> dict[str, Any]:
    if not route.many:
        return schema
    if route.bare:
        return {"type": "array", "items": schema}
    return {
        "type": "object",
        "required": ["api", "rev", "items"],
        "properties": {
            "api": {"type": "string"},
            "rev": {"type": "integer"},
            "items": {"type": "array", "items": schema},
        },
    }
