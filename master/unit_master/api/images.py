"""Images: what machines are to hold warm, what they hold, and orders about it."""

from __future__ import annotations

from aiohttp import web

from unit_master.api.backend import BACKEND, ApiError, answer, backend_at_revision, body, items
from unit_master.warming import image_views
from unitfleet.api import Revision, WarmOrder
from unitfleet.problems import BadValue
from unitfleet.quadlet import image_reference

MOST_WHERE = 16


async def list_images(request: web.Request) -> web.Response:
    """Return every image that machines are to hold, machine by machine; `?image=` one of them."""
    asked = request.query.get("image", "")
    if asked:
        _check_reference(asked)
    backend = await backend_at_revision(request)
    return items(backend, image_views(backend.cache.view, asked))


async def warm(request: web.Request) -> web.Response:
    """Order that machines hold an image."""
    wish = await _wish(request)
    return answer(Revision(rev=await request.app[BACKEND].orders.warm(wish)), 202)


async def unwarm(request: web.Request) -> web.Response:
    """Take that order back; what units need stays warm."""
    wish = await _wish(request)
    return answer(Revision(rev=await request.app[BACKEND].orders.unwarm(wish)), 202)


async def _wish(request: web.Request) -> WarmOrder:
    wish = await body(request, WarmOrder)
    _check_reference(wish.image)
    if len(wish.where) > MOST_WHERE or any(not key or not value for key, value in wish.where.items()):
        raise ApiError(
            "invalid_request",
            f"cannot warm {wish.image} on these machines: a pair is empty, or there are more than {MOST_WHERE}",
            "where takes key=value of machines' metadata, as list-machines shows it",
        )
    await request.app[BACKEND].cache.wait_for(0, 5.0)
    return wish


def _check_reference(image: str) -> None:
    try:
        image_reference(image)
    except BadValue as error:
        raise ApiError(
            "invalid_request", f"cannot use image {error}", "for example registry:5000/app:1"
        ) from error
    if image.startswith("sha256:"):
        raise ApiError(
            "invalid_request",
            f"cannot warm {image[:19]}: an id says nothing of where the image is pulled from",
            "write [registry/]name:tag or [registry/]name@sha256:…",
        )
