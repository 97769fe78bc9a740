"""The archive of what units wrote: agents fill it, masters ask each other, users search it."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from unit_master.api import certified
from unit_master.api.backend import BACKEND, ApiError, answer, body, moment, number
from unit_master.archive.archive import SearchTooSlow
from unit_master.archive.central import CentralSearch, shown
from unit_master.archive.query import EVER, MOST_LINES, Query
from unitfleet import foreign, names
from unitfleet.api import LogLine
from unitfleet.joinapi import Role
from unitfleet.shipped import GAP, ShippedLine, fault

LINES = 1000
MAX_INGEST = 16 * 1024 * 1024
"""Of one batch, unpacked."""

OFF = "cannot {what}: no master of this cluster keeps the output of units"


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a batch: how many lines were stored, and how many were there already."""

    stored: int
    duplicates: int


async def ingest(request: web.Request) -> web.Response:
    """Store a batch of lines; one that was stored before is not stored again.

    A machine that shows a certificate writes for itself alone.
    """
    archive = _central(request, "store lines").local
    if archive is None:
        raise ApiError("refused", "cannot store lines: this master keeps no output of units", "ask another")
    raw = await request.content.read(MAX_INGEST + 1) if request.can_read_body else b""
    while len(raw) <= MAX_INGEST and not request.content.at_eof():
        raw += await request.content.read(MAX_INGEST + 1 - len(raw))
    if len(raw) > MAX_INGEST:
        raise ApiError("too_large", f"cannot store a batch of more than {MAX_INGEST} bytes")
    try:
        lines = await asyncio.to_thread(
            lambda: [foreign.decode(line, ShippedLine) for line in raw.split(b"\n") if line]
        )
    except msgspec.MsgspecError as error:
        raise ApiError("invalid_request", f"cannot read the lines: {error}") from error
    for at, odd in enumerate(lines, 1):
        if why := fault(odd):
            raise ApiError("invalid_request", f"cannot store line {at} of {len(lines)}: {why}")
    asking = certified.peer(request)
    if asking is not None and asking.role == Role.AGENT:
        others = sorted({line.machine for line in lines} - {asking.name})
        if others:
            raise ApiError("denied", f"cannot store lines of {others[0][:64]}: machine {asking.name} sends them")
    taken = await archive.ingest(lines, len(raw))
    return answer(Ingested(stored=taken.stored, duplicates=taken.duplicates))


async def search(request: web.Request) -> web.Response:
    """Return the newest lines that match, over all units and masters, as JSON lines in order of time.

    A master that can't be asked is told of in a first line, of the stream `gap`.
    """
    central = _central(request, "search")
    backend = request.app[BACKEND]
    limit = number(request, "limit", LINES, MOST_LINES)
    unit = _completed(request.query.get("unit", ""))
    fault = names.glob_fault(unit) if unit else None
    if fault is not None:
        raise ApiError("invalid_request", f"cannot match {unit[:80]!a}: {fault}")
    wanted = request.query.get("machine", "")
    known = backend.cache.view.find_machines(wanted) if wanted else []
    query = Query(
        grep=request.query.get("grep", ""),
        since=moment(request, "since", 0.0),
        until=moment(request, "until", EVER),
        unit=unit,
        machine=known[0] if len(known) == 1 else wanted,
        limit=limit,
    )
    if not central.kept:
        raise ApiError("refused", OFF.format(what="search"), "unit-master --log-store DIR")
    try:
        found = await central.search(query)
    except SearchTooSlow as error:
        raise ApiError("timeout", error.message, error.hint or "") from error
    lacking = [LogLine(at=0.0, stream=GAP, unit="*", text=f"lines may be missing: {why}") for why in found.lacking]
    told = [*lacking, *(shown(line) for line in found.lines)]
    raw = b"".join(msgspec.json.encode(line) + b"\n" for line in told)
    return web.Response(body=raw, content_type="application/x-ndjson")


async def search_here(request: web.Request) -> web.Response:
    """Return what this master holds of what another master searches for."""
    query = await body(request, Query)
    archive = _central(request, "search").local
    if archive is None:
        raise ApiError("refused", "cannot search here: this master keeps no output of units")
    try:
        return answer(await archive.search(query))
    except SearchTooSlow as error:
        raise ApiError("timeout", error.message, error.hint or "") from error


def _completed(unit: str) -> str:
    """Return a unit's name or glob with the suffix that is meant: adserver@1 is a service."""
    return f"{unit}.service" if unit and "." not in unit and not unit.endswith("*") else unit


def _central(request: web.Request, what: str) -> CentralSearch:
    central = request.app[BACKEND].archive
    if central is None:
        raise ApiError("refused", OFF.format(what=what), "unit-master --log-store DIR")
    return central
