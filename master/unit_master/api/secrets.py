"""Secrets: set, list, remove. No answer holds a value."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import BACKEND, CALLER, answer, backend_at_revision, body, items
from unit_master.secrets.plan import secret_views
from unitfleet.accessapi import SecretOrder
from unitfleet.api import Revision


async def set_secret(request: web.Request) -> web.Response:
    """Give a secret a value."""
    order = await body(request, SecretOrder)
    return answer(await request.app[BACKEND].secrets.set(order, request[CALLER].name), 201)


async def list_secrets(request: web.Request) -> web.Response:
    """Return every secret without its value, by name."""
    backend = await backend_at_revision(request)
    return items(backend, secret_views(backend.cache.view))


async def remove(request: web.Request) -> web.Response:
    """Remove a secret; copies that run keep what they were given."""
    return answer(Revision(rev=await request.app[BACKEND].secrets.remove(request.match_info["secret"])))
