"""What a container shows after its end, and where it is put so that it stays: pure, but for asking the Engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from unit_agent.driver import Remains
from unit_agent.drivers.docker_engine import CHANGE_S, LIST_S, Engine, EngineRefused
from unit_agent.drivers.docker_logs import parse_time
from unit_agent.drivers.docker_request import Owner

_MARK = re.compile(r"\.scene-([0-9a-f]{12})$")  # ends the name of a container that was set aside
_ENVIRONMENT = re.compile(r"^([^=]*)=.*$", re.DOTALL)


def scene_name(name: str, scene: str) -> str:
    """Return what a container is called once it is set aside.

    Labels can't be changed, so the name says that it is no copy any more: as with a stop on order, it says so to
    every agent that comes after.
    """
    return f"{name}.scene-{scene}"


def scene_of(name: str) -> str:
    """Return the scene that a container of this name was set aside for, "" for a copy's."""
    found = _MARK.search(name)
    return found[1] if found else ""


def remains_of(inspected: Mapping[str, Any]) -> Remains:
    """Return what an inspected container shows of its end; no value of its environment is in it."""
    state = inspected["State"]
    checks = (state.get("Health") or {}).get("Log") or ()
    config = {**inspected["Config"], "Env": without_values(inspected["Config"].get("Env") or ())}
    health = {**(state.get("Health") or {}), "Log": len(checks)}
    return Remains(
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        started=parse_time(state["StartedAt"]),
        finished=parse_time(state["FinishedAt"]),
        size=inspected.get("SizeRw") or 0,
        health=tuple((parse_time(one["End"]), one["ExitCode"], one["Output"][:1000]) for one in checks),
        inspect={**inspected, "Config": config, "State": {**state, "Health": health}},
    )


def without_values(environment: Sequence[str]) -> list[str]:
    """Return `NAME=…` of each variable."""
    return [_ENVIRONMENT.sub(r"\1=…", variable) for variable in environment]


async def examine(engine: Engine, unit: str, copy_id: str) -> Remains:
    """Ask for all that a container shows, with the size of what it wrote: that may take the Engine a while."""
    container = engine.docker.containers.container(copy_id)
    return remains_of(await engine.call(f"look at {unit}", container.show(size=True), LIST_S))


async def discard(engine: Engine, owner: Owner, copy_id: str, scene: str) -> None:
    """Remove a container that was set aside, and its anonymous volumes; one of another name or owner is left."""
    doing = f"remove the container of scene {scene}"
    try:
        found = await engine.inspect(copy_id)
        if not owner.owns(found["Config"].get("Labels") or {}) or scene_of(found["Name"]) != scene:
            return
        container = engine.docker.containers.container(copy_id)
        await engine.call(doing, container.delete(v=True, force=True), CHANGE_S)
    except EngineRefused as error:
        if error.status != 404:
            raise
