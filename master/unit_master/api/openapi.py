"""The OpenAPI description of the API, made of the route table and the types of its answers."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

import msgspec

from unit_master.api.routes import ROUTES, Route
from unitfleet.api import ErrorBody

_REFERENCE = "#/components/schemas/{name}"


def describe() -> dict[str, Any]:
    """Return the description (OpenAPI 3.1)."""
    types = {kind for route in ROUTES for kind in (route.gives, route.takes) if kind is not None} | {ErrorBody}
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
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in route.query
    ]
    operation: dict[str, Any] = {
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "summary": (route.handler.__doc__ or "").splitlines()[0],
        "parameters": parameters,
        "responses": {
            str(route.status): {
                "description": "done",
                "content": {route.media: {"schema": _answer(route, schemas[route.gives])}},
            },
            "default": {
                "description": "an error, with a word for programs and a hint for people",
                "content": {"application/json": {"schema": schemas[ErrorBody]}},
            },
        },
    }
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[route.takes]}},
        }
    if route.public:
        operation["security"] = []
    return operation


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
