"""Figures over an agent's listener, of real processes; and how a closed machine is told to the store."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import msgspec
import psutil
import pytest

from functional.agent_world import M, World, story, until
from harness.cluster import Cluster
from harness.eventually import eventually
from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.machine import Facts
from unit_agent.resources.duty import FiguresDuty
from unit_agent.settings import AgentConfig
from unit_agent.shaping.duty import Shaping
from unitfleet import keys
from unitfleet.api import MachineFigures, UnitFigures
from unitfleet.codec import decode
from unitfleet.model import Capacity, CopyPhase, Presence, Resources

BUSY = "[Service]\nLimitNOFILE=512\nExecStart=/bin/sh -c 'exec 7</dev/null 8</dev/null; while :; do :; done'\n"
IDLE = "[Service]\nExecStart=/bin/sh -c '/bin/sleep 1000 & /bin/sleep 1000'\n"


class Agent:
    """The listener of a cluster's one agent."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession, base: str) -> None:
        self.cluster = cluster
        self.session = session
        self.base = base

    async def figures(self) -> MachineFigures:
        async with self.session.get(f"{self.base}/v1/figures") as answer:
            assert answer.status == 200, await answer.text()
            return _read(await answer.read())

    async def unit(self, name: str) -> UnitFigures | None:
        return next((unit for unit in (await self.figures()).units if unit.unit == name), None)

    async def pid(self, name: str) -> int:
        view = await self.cluster.unit(name)
        assert view is not None
        return view.copies[0].pid


def _read(line: bytes) -> MachineFigures:
    return msgspec.json.decode(line, type=MachineFigures)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with Cluster.on_loopback(tmp_path, machines=1, masters=1) as cluster:
        [listing] = (await cluster.store.list(keys.presence(""))).items
        presence = decode(listing.value, Presence, listing.key)
        key = (cluster.units_dir.parent / "cluster.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield Agent(cluster, session, f"http://{presence.address}:{presence.port}")


async def test_a_busy_process_unit_is_seen_as_psutil_sees_it(agent: Agent) -> None:
    agent.cluster.write("busy.service", BUSY)
    agent.cluster.write("idle.service", IDLE)
    await agent.cluster.must("start", "busy", "idle")
    witness = psutil.Process(await agent.pid("busy.service"))

    async def both() -> tuple[UnitFigures, UnitFigures] | None:
        busy, idle = await agent.unit("busy.service"), await agent.unit("idle.service")
        return (busy, idle) if busy and idle and busy.cpu > 0 else None

    # the first figures may hold no rate yet
    found = await eventually(both, within_s=15, what=lambda: "the busy unit shows CPU", every_s=0.2)
    assert found is not None
    busy, idle = found
    before = sum(witness.cpu_times()[:2])
    assert 0.05 < busy.cpu <= 1.2 and idle.cpu < 0.05, found
    assert busy.cpu_s <= before + 0.1 and busy.cpu_s > 0

    async def more() -> UnitFigures | None:
        seen = await agent.unit("busy.service")
        return seen if seen is not None and seen.cpu_s > busy.cpu_s else None

    again = await eventually(more, within_s=15, what=lambda: "its CPU time grows", every_s=0.2)
    assert again is not None
    assert abs(again.cpu_s - sum(witness.cpu_times()[:2])) < 2.5  # a sample may be a second old
    assert again.open_files == witness.num_fds() and again.open_files_limit == 512
    assert 0 < again.memory < 64 * 1024 * 1024 and again.memory <= again.memory_usage
    assert (again.processes, idle.processes) == (1, 3)
    assert (again.egress, again.sent_bytes, again.driver) == (-1, -1, "process")


async def test_the_machines_figures_now_and_as_they_come(agent: Agent) -> None:
    async def rated() -> MachineFigures | None:
        found = await agent.figures()
        return found if found.used.cpu > 0 else None

    seen = await eventually(rated, within_s=15, what=lambda: "the machine shows CPU", every_s=0.2)
    assert seen is not None
    memory = psutil.virtual_memory()
    assert seen.name == "m1" and seen.units == ()
    assert seen.capacity.cpu == psutil.cpu_count() and seen.capacity.memory == memory.total
    assert abs(seen.used.memory - (memory.total - memory.available)) < 0.2 * memory.total
    assert 0 < seen.used.cpu <= seen.capacity.cpu
    assert set(seen.pressure) <= {"cpu", "memory", "io"}
    # and a reader that follows gets a line at its pace
    async with agent.session.get(f"{agent.base}/v1/figures?follow=true&every=1") as answer:
        assert answer.status == 200
        lines = [_read(await answer.content.readline()) for _ in range(3)]
    assert lines[0].at < lines[1].at < lines[2].at
    assert 0.8 < lines[2].at - lines[1].at < 3


async def test_what_cannot_be_answered_is_refused_with_the_reason(agent: Agent) -> None:
    for every in ("0", "0.5", "61", "-1", "nan", "soon", ""):
        async with agent.session.get(f"{agent.base}/v1/figures?follow=true&every={every}") as answer:
            body: dict[str, Any] = json.loads(await answer.text())
            assert answer.status == 400 and "1 to 60 seconds" in body["message"], every
    async with aiohttp.ClientSession() as stranger, stranger.get(f"{agent.base}/v1/figures") as answer:
        assert answer.status == 401


# ---------------------------------------------------------------------- a duty alone


class Shaped(Shaping):
    """A shaping duty of which one unit has a limit in force."""

    def __init__(self) -> None:
        """Needs no host."""

    def limits_of(self, unit: str) -> tuple[int, int]:
        return (20_000_000, 0) if unit == "a.service" else (0, 0)


def a_duty(state_dir: Path, *units: str) -> FiguresDuty:
    """Return the duty of an agent with copies that are this very process."""
    usual = {"driver": "process", "spec": "s", "incarnation": "i", "epoch": 1, "restart": 0}
    held = {
        unit: Copy(unit=unit, id=unit, phase=CopyPhase.RUNNING, pid=os.getpid(), **usual)  # type: ignore[arg-type]
        for unit in units
    }
    agent = SimpleNamespace(
        facts=Facts(id="m1", name="alpha", boot_id="b", fingerprint="f"),
        copies=SimpleNamespace(units=held.keys, find=held.get, drivers=("process",)),
        duties=[Shaped()],
    )
    context = SimpleNamespace(agent=agent, config=AgentConfig(state_dir=state_dir, egress="1G"))
    return FiguresDuty(cast(Context, context))


async def test_limits_in_force_stand_beside_what_a_unit_uses(tmp_path: Path) -> None:
    seen = await a_duty(tmp_path, "a.service", "b.service").figures()
    assert [(unit.unit, unit.egress_limit, unit.ingress_limit) for unit in seen.units] == [
        ("a.service", 20_000_000, 0),
        ("b.service", 0, 0),
    ]
    assert seen.capacity.egress == 10**9


async def test_those_who_ask_at_the_same_time_share_one_sample(tmp_path: Path) -> None:
    duty = a_duty(tmp_path, "a.service")
    assert duty.latest().units == ()
    first, second = await asyncio.gather(duty.figures(), duty.figures())
    assert first is second is duty.latest() and len(first.units) == 1
    assert (await duty.figures(older_s=0.0)).at > first.at


# ---------------------------------------------------------------------- in virtual time


def test_a_machine_that_closes_is_told_at_once_and_keeps_its_pace_else() -> None:
    async def tell(world: World) -> None:
        used = 100

        def measure() -> Resources:
            return Resources(id=M, capacity=Capacity(cpu=1, memory=1000, disk=1000), memory_used=used)

        async def told(closed: str) -> bool:
            found = await world.read(keys.resources(M), Resources)
            return found is not None and found.closed == closed

        async with world.agent(measure=measure) as agent:
            await until(lambda: told(""), 2, "told at the join")
            agent.presence.close("disk: 91 %")
            await until(lambda: told("disk: 91 %"), 1, "closed at once")
            agent.presence.close("disk: 95 %")
            await asyncio.sleep(5)
            assert await told("disk: 91 %"), "another figure can wait"
            await until(lambda: told("disk: 95 %"), 31, "told at its pace")
            agent.presence.close("")
            await until(lambda: told(""), 1, "opened at once")

    story(tell)
