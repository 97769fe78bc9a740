"""What happened lately, to which unit or machine, and why."""

from __future__ import annotations

import heapq

from aiohttp import web

from unit_master.api.backend import backend_at_revision, items, number
from unit_master.orders import find_machine

LIMIT = 100
MOST = 1000


async def list_events(request: web.Request) -> web.Response:
    """Return the latest `?limit=` events, oldest first, of one `?unit=` or `?machine=` if asked for."""
    backend = await backend_at_revision(request)
    limit = number(request, "limit", LIMIT, MOST) or LIMIT
    unit = request.query.get("unit", "")
    wanted = request.query.get("machine", "")
    view = backend.cache.view
    machine = find_machine(view, wanted) if wanted else ""
    found = (
        (entry.value.at, entry.revision, key)
        for key, entry in view.events.items()
        if (not unit or entry.value.unit == unit) and (not machine or entry.value.machine == machine)
    )
    latest = heapq.nlargest(limit, found)
    return items(backend, [view.events[key].value for _, _, key in reversed(latest)])
