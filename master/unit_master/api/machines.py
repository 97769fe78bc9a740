"""Machines: list, cordon, drain, declare lost, remove."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import BACKEND, ApiError, answer, backend_at_revision, items
from unit_master.orders import MachineOrder
from unit_master.views import machine_views
from unitfleet.api import Revision
from unitfleet.problems import nearest


async def list_machines(request: web.Request) -> web.Response:
    """Return every machine that is there or was."""
    backend = await backend_at_revision(request)
    return items(backend, machine_views(backend.cache.view))


async def order(request: web.Request) -> web.Response:
    """Carry out an order about a machine, given by name, id or a unique prefix."""
    word = request.match_info["order"]
    allowed = [known.value for known in MachineOrder]
    if word not in allowed:
        raise ApiError(
            "not_found",
            f"cannot {word[:40]!a} a machine: no such order",
            nearest(word, allowed) or ", ".join(allowed),
        )
    backend = request.app[BACKEND]
    await backend.cache.wait_for(0, 5.0)
    return answer(
        Revision(rev=await backend.orders.machine(request.match_info["machine"], MachineOrder(word))), 202
    )
