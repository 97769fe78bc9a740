"""Units: submit, start, stop, destroy; list, show, explain, endpoints."""

from __future__ import annotations

import msgspec
from aiohttp import web

from unit_master.api.backend import BACKEND, ApiError, answer, backend_at_revision, body, items, refusal
from unit_master.api.sse import event_stream
from unit_master.explain import explain
from unit_master.view import ClusterView
from unit_master.views import Views, endpoints
from unit_master.wishes import unknown
from unitfleet import names
from unitfleet.api import Change, Changes, EndpointView, Explanation, Items, UnitFile
from unitfleet.model import TargetState

MOST_CHANGES = 5000


async def change(request: web.Request) -> web.Response:
    """Carry out wishes; the answer says of each what became of it."""
    changes = (await body(request, Changes)).changes
    if len(changes) > MOST_CHANGES:
        raise ApiError(
            "too_large", f"cannot carry out {len(changes)} changes in one call: {MOST_CHANGES} are allowed"
        )
    return answer(await request.app[BACKEND].changer.carry_out(changes), 202)


async def destroy(request: web.Request) -> web.Response:
    """Set one unit's target state to destroyed."""
    wish = Change(name=request.match_info["name"], target=TargetState.DESTROYED)
    changed = await request.app[BACKEND].changer.carry_out((wish,))
    error = changed.items[0].error
    return refusal(error) if error else answer(changed, 202)


async def list_units(request: web.Request) -> web.Response:
    """Return every unit, or those whose names match `?name=`."""
    backend = await backend_at_revision(request)
    views = Views(backend.cache.view)
    wanted = matching(views.names(), request.query.get("name", ""))
    return items(backend, [view for name in wanted if (view := views.unit(name)) is not None])


async def show(request: web.Request) -> web.Response:
    """Return one unit with its text."""
    backend = await backend_at_revision(request)
    view = backend.cache.view
    name = request.match_info["name"]
    shown = Views(view).unit(name)
    if shown is None:
        raise unknown(name, view.units)
    return answer(UnitFile(unit=shown, text=view.texts.get(shown.spec, "")))


async def explain_unit(request: web.Request) -> web.Response:
    """Say why a unit is where it is, or nowhere."""
    backend = await backend_at_revision(request)
    view = backend.cache.view
    name = request.match_info["name"]
    shown = Views(view).unit(name)
    if shown is None:
        raise unknown(name, view.units)
    explained = explain(view, name)
    if explained is None:  # a record that can't be read: known, and nothing to schedule
        explained = Explanation(name=name, rev=view.revision, summary=shown.why, machines=())
    return answer(msgspec.structs.replace(explained, unit=shown))


async def list_endpoints(request: web.Request) -> web.StreamResponse:
    """Return where the units that match `?unit=` answer; with `Accept: text/event-stream` each change of that."""
    backend = await backend_at_revision(request)
    pattern = request.query.get("unit", "")
    if "text/event-stream" not in request.headers.get("Accept", ""):
        return items(backend, _endpoints(backend.cache.view, pattern))
    with backend.streaming(), backend.cache.subscribe() as subscription:
        async with event_stream(request) as events:
            told = None
            while True:
                found = _endpoints(backend.cache.view, pattern)
                if found != told:
                    revision = backend.cache.view.revision
                    await events.send(revision, Items(rev=revision, items=found))
                    told = found
                await events.next(subscription)
        return events.response


def _endpoints(view: ClusterView, pattern: str) -> tuple[EndpointView, ...]:
    return endpoints(view, matching(sorted(view.units), pattern))


def matching(known: list[str], pattern: str) -> list[str]:
    """Return the names that a glob matches, all for ""; raises `ApiError` for what is no glob."""
    if not pattern:
        return known
    fault = names.glob_fault(pattern)
    if fault is not None:
        raise ApiError("invalid_request", f"cannot match {pattern[:80]!a}: {fault}")
    return [name for name in known if name == pattern or names.glob_match(pattern, name)]
