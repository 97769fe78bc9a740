"""Machines as fleet's clients see them, and their metadata as those change it."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

from unit_master.api.backend import CATCH_UP_S, ApiError, answer
from unit_master.api.fleet import pages, shown
from unit_master.api.fleet.units import asked_page, nothing, synced
from unit_master.relabel import Labels, value_fault
from unitfleet import foreign
from unitfleet.fleetapi import MachinePage, MetadataOp

_PATH = re.compile(r"/([^/]+)/metadata/([A-Za-z0-9_.-]{1,128})")


async def list_machines(request: web.Request) -> web.Response:
    """Return a page of the machines that are there."""
    page = asked_page(request)
    view = (await synced(request)).cache.view
    machines, token = pages.cut(shown.machines(view), page)
    return answer(MachinePage(machines=tuple(machines), next_page_token=token))


async def patch(request: web.Request) -> web.Response:
    """Change metadata of machines: all that is asked for, or nothing."""
    try:
        ops = foreign.decode(await request.read(), tuple[MetadataOp, ...])
    except msgspec.MsgspecError as error:
        raise ApiError("invalid_request", f"unable to decode body: {error}") from error
    labels = _labels(ops)
    backend = await synced(request)
    revision = await backend.orders.relabel(labels)
    await backend.cache.wait_for(revision, CATCH_UP_S)
    return nothing(204)


def _labels(ops: tuple[MetadataOp, ...]) -> Labels:
    """Return what becomes of which key of which machine, the last word counting; raises `ApiError`."""
    found: dict[str, dict[str, str | None]] = {}
    for op in ops:
        if op.op not in ("add", "remove", "replace"):
            raise _wrong("invalid op: expect add, remove, or replace")
        path = _PATH.fullmatch(op.path)
        if path is None:
            raise _wrong("machine metadata path invalid")
        if op.op != "remove" and not op.text:
            raise _wrong("invalid value: add and replace require a value")
        if op.op != "remove" and (fault := value_fault(op.text)) is not None:
            raise _wrong(f"invalid value: {fault}")
        machine, key = path.groups()
        found.setdefault(machine, {})[key] = None if op.op == "remove" else op.text
    return found


def _wrong(message: str) -> ApiError:
    return ApiError("invalid_request", message)
