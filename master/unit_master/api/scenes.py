"""Failed copies that were kept for a look: asked of the agents that may have them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import quote

from aiohttp import web

from unit_master.api.agents import ANSWER_S, AgentAway, ask
from unit_master.api.backend import ApiError, Backend, answer, backend_at_revision
from unit_master.view import ClusterView
from unitfleet.api import Scene, Scenes
from unitfleet.errors import NotFound
from unitfleet.model import Presence

AT_ONCE = 32
"""Agents that are asked at the same time."""

REMOVE_S = 50.0
"""For an agent to remove containers; an Engine takes its time with large ones."""

PATH = "/v1/scenes"


async def list_scenes(request: web.Request) -> web.Response:
    """Return every kept copy of the fleet, without its output."""
    backend = await backend_at_revision(request)
    return answer(await _gather(backend, backend.cache.view.presence, PATH))


async def show(request: web.Request) -> web.Response:
    """Return what is kept of one unit."""
    backend, name = await backend_at_revision(request), request.match_info["name"]
    return answer(_some(name, await _gather(backend, _machines(backend.cache.view, name), _path(name))))


async def remove(request: web.Request) -> web.Response:
    """Remove what is kept of one unit, on every machine that can be asked; return what that was."""
    backend, name = await backend_at_revision(request), request.match_info["name"]
    machines = _machines(backend.cache.view, name)
    return answer(_some(name, await _gather(backend, machines, _path(name) + "/rm", "POST", REMOVE_S)))


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"


def _some(name: str, found: Scenes) -> Scenes:
    if found.items:
        return found
    if found.unasked:
        why = "; ".join(found.unasked)
        raise ApiError("agent", f"cannot tell whether a scene of {name} is kept: {why}")
    raise NotFound(
        f"cannot find a scene of {name}: no machine keeps a failed copy of it",
        hint="copies of units with OnFailure=keep are kept; unitctl scene ls shows those there are",
    )


def _machines(view: ClusterView, name: str) -> set[str]:
    """Return where a copy of the unit is or was, by its history; every machine when nothing is known of it."""
    stays = {entry.value.machine for entry in view.stays.get(name, {}).values()}
    known = stays | view.placements_of(name).keys() | view.states_of(name).keys()
    return known - {""} or set(view.presence.keys() | view.roster.keys())


async def _gather(
    backend: Backend, machines: Iterable[str], path: str, method: str = "GET", answer_s: float = ANSWER_S
) -> Scenes:
    view = backend.cache.view
    found: list[Scene] = []
    unasked: list[str] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def ask_one(agent: Presence) -> None:
        async with room:
            try:
                told = await ask(backend.link, agent, path, Scenes, method, answer_s)
                found.extend(told.items)
            except AgentAway as error:
                unasked.append(f"{agent.name}: {error.message}")

    async with asyncio.TaskGroup() as tasks:
        for machine in sorted(set(machines)):
            present = view.presence.get(machine)
            if present is not None:
                tasks.create_task(ask_one(present.value))
            elif machine in view.roster:
                unasked.append(f"{view.machine_name(machine)}: its agent is not there")
    items = sorted(found, key=lambda scene: (scene.at, scene.id))
    return Scenes(rev=view.revision, items=tuple(items), unasked=tuple(sorted(unasked)))
