"""Tokens: create, list, remove."""

from __future__ import annotations

from aiohttp import web

from unit_master.access.tokens import shown
from unit_master.api.backend import BACKEND, CALLER, answer, backend_at_revision, body, items
from unitfleet.accessapi import TokenOrder
from unitfleet.api import Revision


async def create(request: web.Request) -> web.Response:
    """Make a token; the answer alone holds it."""
    order = await body(request, TokenOrder)
    response = answer(await request.app[BACKEND].tokens.create(order, request[CALLER].name), 201)
    response.headers["Cache-Control"] = "no-store"
    return response


async def list_tokens(request: web.Request) -> web.Response:
    """Return every token without its secret, by name."""
    backend = await backend_at_revision(request)
    found = sorted((entry.value for entry in backend.cache.view.tokens.values()), key=lambda token: token.name)
    return items(backend, [shown(token, backend.now()) for token in found])


async def remove(request: web.Request) -> web.Response:
    """Remove a token by its name or id: it opens nothing from now on."""
    return answer(Revision(rev=await request.app[BACKEND].tokens.remove(request.match_info["token"])))
