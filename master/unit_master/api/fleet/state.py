"""What machines see of units, in systemd's words."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import answer
from unit_master.api.fleet import pages, shown
from unit_master.api.fleet.units import asked_page, synced
from unitfleet.errors import NotFound
from unitfleet.fleetapi import StatePage


async def list_states(request: web.Request) -> web.Response:
    """Return a page of the states, of one `?unitName=` or `?machineID=` if asked for."""
    page = asked_page(request)
    view = (await synced(request)).cache.view
    query = request.query
    found = shown.reports(view, unit_name=query.get("unitName", ""), machine=query.get("machineID", ""))
    reports, token = pages.cut(found, page)
    return answer(StatePage(states=tuple(shown.state(view, each) for each in reports), next_page_token=token))


async def show(request: web.Request) -> web.Response:
    """Return what the first machine says of a unit, by id."""
    view = (await synced(request)).cache.view
    name = request.match_info["name"]
    found = next(shown.reports(view, unit_name=name), None)
    if found is None:
        known = shown.unit(view, name) is not None
        raise NotFound("no machine reports a state of this unit" if known else "unit does not exist")
    return answer(shown.state(view, found))
