"""When an agent says that it warms, and when it stops to wait: a real agent, a store in memory, no Engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from functional.agent_world import World
from harness.eventually import eventually
from unit_agent.agent import Agent
from unit_agent.duty import Context
from unit_agent.images.duty import ImagesDuty
from unit_agent.settings import AgentConfig
from unitfleet import codec, keys
from unitfleet.model import Happening, Wanted, WarmSet


@pytest.fixture
async def world() -> World:
    made = World()
    await made.prepare()
    return made


@contextlib.asynccontextmanager
async def an_agent(world: World, state: Path, **options: Any) -> AsyncIterator[Agent]:
    """Run an agent with the duty, on a host where an Engine should be and none answers."""
    socket = state / "docker.sock"
    await asyncio.to_thread(socket.touch)
    given = {"drivers": ("docker", "process"), "docker_socket": str(socket), **options}
    config = AgentConfig(state_dir=state, **given)
    async with world.agent() as agent:  # it has not begun yet
        agent.duties.append(ImagesDuty(Context(agent, world.store, config)))
        yield agent


async def warming(world: World) -> str:
    presence = await world.presence()
    assert presence is not None
    return presence.warming


async def until_ready(world: World) -> None:
    async def ready() -> bool:
        return not await warming(world)

    await eventually(ready, within_s=10, what=lambda: "it is ready")


async def events(world: World) -> list[Happening]:
    listing = await world.admin.list(keys.PREFIX + "events/")
    return [codec.decode(item.value, Happening, item.key) for item in listing.items]


async def test_a_new_host_says_from_its_first_sign_of_life_that_it_is_not_warm(
    world: World, tmp_path: Path
) -> None:
    async with an_agent(world, tmp_path):
        await world.stands()
        assert await warming(world) == "waits for the Docker Engine"


async def test_a_host_tells_which_images_its_settings_name(world: World, tmp_path: Path) -> None:
    async with an_agent(world, tmp_path, warm=("registry:5000/app:1",)):
        await world.stands()
        presence = await world.presence()
        assert presence is not None
        assert presence.warm == ("registry:5000/app:1",)


async def test_a_host_that_does_not_become_warm_is_ready_after_a_stated_time_and_says_so(
    world: World, tmp_path: Path
) -> None:
    async with an_agent(world, tmp_path, warm_timeout="1s"):
        await world.stands()
        assert await warming(world)
        await until_ready(world)

        async def told() -> bool:
            return any(event.kind == "warm-timeout" for event in await events(world))

        await eventually(told, within_s=10, what=lambda: "an event tells it")
        (event,) = [event for event in await events(world) if event.kind == "warm-timeout"]
        assert event.message == "takes containers after 1s, not warm: waits for the Docker Engine"
        assert event.unit == ""


async def test_an_agent_that_restarts_does_not_wait_again_until_the_host_has_booted(
    world: World, tmp_path: Path
) -> None:
    async with an_agent(world, tmp_path, warm_timeout="1s"):
        await world.stands()
        await until_ready(world)

        async def noted() -> bool:
            return (tmp_path / "images.json").exists()

        await eventually(noted, within_s=10, what=lambda: "it is noted on disk")
    async with an_agent(world, tmp_path) as agent:
        assert agent.presence.warming == ""
    world.facts = type(world.facts)(id="m1", name="alpha", boot_id="b2", fingerprint="f1")
    async with an_agent(world, tmp_path) as agent:
        assert agent.presence.warming


async def test_what_a_placement_wants_and_the_warm_set_are_needed_here(world: World, tmp_path: Path) -> None:
    def text(image: str) -> str:
        return f"[Container]\nImage={image}\n"

    await world.place("a.service", text=text("a:1"), image="a@sha256:" + "1" * 64)
    await world.place("left.service", Wanted.GONE, text=text("left:1"))
    await world.place("bad.service", text=text("NONE"), image="bad@sha256:" + "2" * 64)
    async with an_agent(world, tmp_path) as agent:
        (duty,) = agent.duties
        assert isinstance(duty, ImagesDuty)
        assert await duty.needed() is None  # nobody has told anything yet

        async def synced() -> bool:
            return all(agent.texts.known(*known) or agent.texts.unreadable(*known) for known in wanted(agent))

        await eventually(synced, within_s=10, what=lambda: "its texts are read")
        assert await duty.needed() is None  # no warm set was told
        duty.warmer.take(WarmSet(id="m1", images=("warm:1",)))
        assert await duty.needed() == {"warm:1", "a:1", "a@sha256:" + "1" * 64, "bad@sha256:" + "2" * 64}
        agent.texts._specs.clear()
        assert await duty.needed() is None  # a text that was not read may want anything


def wanted(agent: Agent) -> list[tuple[str, str]]:
    """Return the placements that are to run, with their texts."""
    placements = agent.sync.placements.values()
    return [(one.unit, one.spec) for one in placements if one.wanted is not Wanted.GONE] or [("", "")]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"drivers": ("process",)}, id="it runs no containers"),
        pytest.param({"drivers": ("auto",), "docker_socket": "/nowhere/docker.sock"}, id="it has no Engine"),
        pytest.param({"warm_timeout": "0"}, id="it is told not to wait"),
    ],
)
async def test_a_host_does_not_wait_to_be_warm_when(world: World, tmp_path: Path, options: dict[str, Any]) -> None:
    async with an_agent(world, tmp_path, **options):
        await world.stands()
        assert await warming(world) == ""
