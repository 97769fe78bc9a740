"""fleet's API as Google's clients read it: the description from which libraries for it are generated."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from aiohttp import web

from unit_master.api.backend import answer
from unitfleet.fleetapi import PREFIX
from unitfleet.model import TargetState

Form = dict[str, Any]

_TEXT: Form = {"type": "string"}
_STATE: Form = {
    **_TEXT,
    "enum": [state.value for state in (TargetState.INACTIVE, TargetState.LOADED, TargetState.LAUNCHED)],
}
_MAP: Form = {"type": "object", "additionalProperties": _TEXT}
_UNIT_NAME: Form = {**_TEXT, "location": "path", "required": True}
_QUERY: Form = {**_TEXT, "location": "query"}


async def show(request: web.Request) -> web.Response:
    """Return the description."""
    return answer(describe())


def describe() -> Form:
    """Return the description (Google API Discovery v1)."""
    base = PREFIX.removeprefix("/") + "/"
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "fleet:v1",
        "name": "schema",
        "version": "v1",
        "title": "fleet API",
        "description": f"fleet's API v1, served by Unitfleet {version('unitfleet')}",
        "protocol": "rest",
        "baseUrl": f"$ENDPOINT/{base}",
        "basePath": f"/{base}",
        "rootUrl": "$ENDPOINT/",
        "servicePath": base,
        "batchPath": "batch",
        "parameters": {},
        "auth": {},
        "schemas": _schemas(),
        "resources": {
            "Machines": {
                "methods": {"List": _method("Machine.List", "GET", "machines", "MachinePage", page=True)}
            },
            "Units": {
                "methods": {
                    "List": _method("Unit.List", "GET", "units", "UnitPage", page=True),
                    "Get": _method("Unit.Get", "GET", "units/{unitName}", "Unit"),
                    "Set": _method("Unit.Set", "PUT", "units/{unitName}", takes="Unit"),
                    "Delete": _method("Unit.Delete", "DELETE", "units/{unitName}"),
                }
            },
            "UnitState": {
                "methods": {
                    "List": _method(
                        "UnitState.List",
                        "GET",
                        "state",
                        "UnitStatePage",
                        page=True,
                        query=("unitName", "machineID"),
                    ),
                    "Get": _method("UnitState.Get", "GET", "state/{unitName}", "UnitState"),
                }
            },
        },
    }


def _schemas() -> Form:
    found = {
        "Machine": {"id": _TEXT, "primaryIP": _TEXT, "metadata": _MAP},
        "MachinePage": _page("machines", "Machine"),
        "UnitOption": {"section": _TEXT, "name": _TEXT, "value": _TEXT},
        "Unit": {
            "name": _TEXT,
            "options": _list("UnitOption"),
            "desiredState": _STATE,
            "currentState": _STATE,
            "machineID": _TEXT,
        },
        "UnitPage": _page("units", "Unit"),
        "UnitState": dict.fromkeys(
            ("name", "hash", "machineID", "systemdLoadState", "systemdActiveState", "systemdSubState"), _TEXT
        ),
        "UnitStatePage": _page("states", "UnitState"),
    }
    return {name: {"id": name, "type": "object", "properties": fields} for name, fields in found.items()}


def _page(name: str, of: str) -> Form:
    return {name: _list(of), "nextPageToken": _TEXT}


def _list(of: str) -> Form:
    return {"type": "array", "items": {"$ref": of}}


def _method(
    id: str,
    method: str,
    path: str,
    gives: str = "",
    *,
    takes: str = "",
    page: bool = False,
    query: tuple[str, ...] = (),
) -> Form:
    named = {"unitName": _UNIT_NAME} if "{unitName}" in path else {}
    asked = dict.fromkeys((*query, *(("nextPageToken",) if page else ())), _QUERY)
    found: Form = {"id": f"fleet.{id}", "httpMethod": method, "path": path, "parameters": {**named, **asked}}
    if named:
        found["parameterOrder"] = list(named)
    if takes:
        found["request"] = {"$ref": takes}
    if gives:
        found["response"] = {"$ref": gives}
    return found
