"""Machines: list, cordon, drain, declare lost, remove."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import BACKEND, ApiError, answer, backend_at_revision, body, items
from unit_master.labels import foresee, labelled
from unit_master.orders import MachineOrder, find_machine
from unit_master.views import machine_views
from unitfleet.api import MachineLabels, Revision
from unitfleet.problems import nearest

OF_THEIR_OWN = frozenset(
    {MachineOrder.LOST, MachineOrder.RM, MachineOrder.DENY, MachineOrder.ALLOW, MachineOrder.DRAIN}
)
"""Orders with a route of their own: for admins, or open to a machine about itself."""


async def list_machines(request: web.Request) -> web.Response:
    """Return every machine that is there or was."""
    backend = await backend_at_revision(request)
    return items(backend, machine_views(backend.cache.view))


async def order(request: web.Request) -> web.Response:
    """Carry out an order about a machine, given by name, id or a unique prefix."""
    word = request.match_info["order"]
    allowed = [known.value for known in MachineOrder]
    if word not in allowed or word in OF_THEIR_OWN:
        # those routes ask for more, or for other callers: none of their spellings gets here
        raise ApiError(
            "not_found",
            f"cannot {word[:40]!a} a machine: no such order",
            nearest(word, allowed) or ", ".join(allowed),
        )
    return await _carry_out(request, MachineOrder(word))


async def drain(request: web.Request) -> web.Response:
    """Move the units of a machine to others, and place none there."""
    return await _carry_out(request, MachineOrder.DRAIN)


async def declare_lost(request: web.Request) -> web.Response:
    """Declare a machine lost: its units are placed anew."""
    return await _carry_out(request, MachineOrder.LOST)


async def remove(request: web.Request) -> web.Response:
    """Forget a lost machine."""
    return await _carry_out(request, MachineOrder.RM)


async def deny(request: web.Request) -> web.Response:
    """Shut a machine's certificate out."""
    return await _carry_out(request, MachineOrder.DENY)


async def allow(request: web.Request) -> web.Response:
    """Let a machine's certificate in again."""
    return await _carry_out(request, MachineOrder.ALLOW)


async def label(request: web.Request) -> web.Response:
    """Set metadata of a machine."""
    wish = await body(request, MachineLabels)
    backend = request.app[BACKEND]
    await backend.cache.wait_for(0, 5.0)
    return answer(Revision(rev=await backend.orders.label({request.match_info["machine"]: wish.metadata})), 202)


async def preview_labels(request: web.Request) -> web.Response:
    """Say which units would move if metadata of a machine were set; nothing is."""
    backend = await backend_at_revision(request)
    view = backend.cache.view
    machine = find_machine(view, request.match_info["machine"])
    labels: dict[str, str] = {}
    for pair in filter(None, request.query.get("set", "").split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ApiError("invalid_request", f"cannot read {pair[:80]!a}: it is no key=value", "k=v,k2=")
        labels[key] = value
    return answer(foresee(view, machine, labelled(view, machine, labels), backend.now()))


async def _carry_out(request: web.Request, order: MachineOrder) -> web.Response:
    backend = request.app[BACKEND]
    await backend.cache.wait_for(0, 5.0)
    return answer(Revision(rev=await backend.orders.machine(request.match_info["machine"], order)), 202)
