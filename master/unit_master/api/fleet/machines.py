"""Machines as fleet's clients see them, and their metadata as those change it."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

from unit_master.api.backend import CATCH_UP_S, ApiError, answer
from unit_master.api.fleet import pages, shown
from unit_master.api.fleet.units import asked_page, nothing, synced
from unit_master.labels import KEY, VALUE
from unitfleet import foreign
from unitfleet.fleetapi import MachinePage, MetadataOp

_PATH = re.compile(r"/([^/]+)/metadata/([^/]+)")


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
    revision = await backend.orders.label(labels)
    await backend.cache.wait_for(revision, CATCH_UP_S)
    return nothing(204)


def _labels(ops: tuple[MetadataOp, ...]) -> dict[str, dict[str, str]]:
    """Return what becomes of which key of which machine, "" for a key that goes; the last word counts.

    Raises `ApiError`.
    """
    found: dict[str, dict[str, str]] = {}
    for op in ops:
        if op.op not in ("add", "remove", "replace"):
            raise _wrong("invalid op: expect add, remove, or replace")
        path = _PATH.fullmatch(op.path)
        if path is None or not KEY.fullmatch(path[2]):
            raise _wrong("machine metadata path invalid")
        if op.op != "remove" and not op.text:
            raise _wrong("invalid value: add and replace require a value")
        if op.op != "remove" and not VALUE.fullmatch(op.text):
            raise _wrong("invalid value: 256 characters at most, without blanks, quotes, = and ,")
        found.setdefault(path[1], {})[path[2]] = "" if op.op == "remove" else op.text
    return found


def _wrong(message: str) -> ApiError:
    return ApiError("invalid_request", message)
