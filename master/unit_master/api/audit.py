"""Who changed what: searched over all masters, which ask each other."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import ApiError, answer, backend_at_revision, body, moment, number
from unit_master.audit.reading import MOST_LINES, AuditFound, AuditQuery
from unitfleet import names
from unitfleet.accessapi import AuditTrail

LINES = 100


async def search(request: web.Request) -> web.Response:
    """Return what was asked of all masters, the newest that match, oldest first."""
    backend = await backend_at_revision(request)
    unit = request.query.get("unit", "")
    fault = names.glob_fault(unit) if unit else None
    if fault is not None:
        raise ApiError("invalid_request", f"cannot match {unit[:80]!a}: {fault}")
    query = AuditQuery(
        since=moment(request, "since", 0.0),
        caller=request.query.get("caller", ""),
        unit=unit,
        limit=number(request, "limit", LINES, MOST_LINES),
    )
    found = await backend.audit.everywhere(query)
    return answer(AuditTrail(rev=backend.cache.view.revision, items=found.items, unasked=found.unasked))


async def search_here(request: web.Request) -> web.Response:
    """Return what was asked of this master, for another one."""
    backend = await backend_at_revision(request)
    query = await body(request, AuditQuery)
    try:
        found: AuditFound = await backend.audit.here(query)
    except OSError as error:
        raise ApiError(
            "internal", f"cannot read the audit log: {(error.strerror or str(error)).lower()}"
        ) from error
    return answer(found)
