"""What is wrong with the cluster, or will be; and what this master says of itself to another that asks."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import BACKEND, answer, body
from unitfleet.findings import CheckupQuery


async def show(request: web.Request) -> web.Response:
    """Examine the cluster: the store, agents and masters are asked, each with a deadline."""
    return answer(await request.app[BACKEND].doctor.diagnose())


async def checkup(request: web.Request) -> web.Response:
    """Say how this master is, for another one."""
    await body(request, CheckupQuery)
    return answer(await request.app[BACKEND].doctor.own())
