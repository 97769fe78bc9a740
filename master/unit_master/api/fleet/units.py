"""Units as fleet's clients see and set them."""

from __future__ import annotations

import msgspec
from aiohttp import web

from unit_master.api.backend import BACKEND, CATCH_UP_S, ApiError, Backend, answer
from unit_master.api.fleet import pages, shown
from unit_master.api.fleet.wanted import wanted
from unitfleet import foreign
from unitfleet.api import Change
from unitfleet.errors import NotFound
from unitfleet.fleetapi import Unit, UnitPage
from unitfleet.model import TargetState


async def list_units(request: web.Request) -> web.Response:
    """Return a page of the units."""
    page = asked_page(request)
    view = (await synced(request)).cache.view
    names, token = pages.cut(shown.unit_names(view), page)
    found = (shown.unit(view, name) for name in names)
    return answer(UnitPage(units=tuple(each for each in found if each is not None), next_page_token=token))


async def show(request: web.Request) -> web.Response:
    """Return one unit."""
    view = (await synced(request)).cache.view
    found = shown.unit(view, request.match_info["name"])
    if found is None:
        raise NotFound("unit does not exist")
    return answer(found)


async def put(request: web.Request) -> web.Response:
    """Submit a unit, replace its options, or set its desired state."""
    if request.content_type != "application/json":
        raise ApiError("unsupported_media", "only acceptable Content-Type is application/json")
    try:
        body = foreign.decode(await request.read(), Unit)
    except msgspec.MsgspecError as error:
        raise ApiError("invalid_request", f"unable to decode body: {error}") from error
    backend = await synced(request)
    change, is_new = wanted(backend.cache.view, request.match_info["name"], body)
    await _carry_out(backend, change)
    return nothing(201 if is_new else 204)


async def destroy(request: web.Request) -> web.Response:
    """Destroy a unit; one whose record can't be read, too."""
    backend = await synced(request)
    name = request.match_info["name"]
    if shown.unit(backend.cache.view, name) is None:
        raise NotFound("unit does not exist")
    await _carry_out(backend, Change(name=name, target=TargetState.DESTROYED))
    return nothing(204)


async def _carry_out(backend: Backend, change: Change) -> None:
    """Carry out a wish, and let this master see it: fleet's clients read at once what they wrote."""
    changed = await backend.changer.carry_out((change,))
    if error := changed.items[0].error:
        raise ApiError(error.code, error.message, error.hint)
    await backend.cache.wait_for(changed.rev, CATCH_UP_S)


def asked_page(request: web.Request) -> int:
    """Return which page is asked for; raises `ApiError`."""
    try:
        return pages.asked(request.query.getall("nextPageToken", []))
    except pages.BadToken as error:
        raise ApiError("invalid_request", error.message) from error


async def synced(request: web.Request) -> Backend:
    """Return the backend once it has read the store; raises `StoreUnavailable`."""
    backend = request.app[BACKEND]
    await backend.cache.wait_for(0, CATCH_UP_S)
    return backend


def nothing(status: int) -> web.Response:
    """Answer without a body."""
    return web.Response(status=status, content_type="application/json")
