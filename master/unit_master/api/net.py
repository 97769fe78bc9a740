"""Bandwidth of units: what is wanted and what stands on which machine; a change of it that restarts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from unit_master.api.agents import AgentAway, ask
from unit_master.api.backend import BACKEND, Backend, answer, backend_at_revision, body, items, refusal
from unit_master.api.units import matching
from unit_master.phases import is_template, machine_status
from unit_master.view import ClusterView
from unitfleet.api import Change, NetLimit, NetLimits, NetView, UnitNet
from unitfleet.model import Bandwidth, Presence, Wanted

AT_ONCE = 32
"""Agents that are asked at the same time."""

PATH = "/v1/net"

Told = dict[str, dict[str, UnitNet] | str]
"""By machine: its units' bandwidth as its agent says, or why it says nothing."""


async def limit(request: web.Request) -> web.Response:
    """Change a unit's bandwidth from now on, in place of what its text says; nothing restarts."""
    wish = Change(name=request.match_info["name"], bandwidth=await body(request, NetLimit))
    changed = await request.app[BACKEND].changer.carry_out((wish,))
    error = changed.items[0].error
    return refusal(error) if error else answer(changed, 202)


async def list_net(request: web.Request) -> web.Response:
    """Return the bandwidth of the units that match `?unit=`, or of all that have any said of it."""
    backend = await backend_at_revision(request)
    pattern = request.query.get("unit", "")
    names = matching(sorted(backend.cache.view.units), pattern)
    told = await _ask_agents(backend, names)
    found = (shown for name in names for shown in net_views(backend.cache.view, name, told))
    return items(backend, [shown for shown in found if pattern or _says_something(shown)])


async def _ask_agents(backend: Backend, names: list[str]) -> Told:
    """Ask the agents of all machines that have these units."""
    view = backend.cache.view
    machines = {machine for name in names for machine in view.placements_of(name)}
    told: Told = {machine: f"the machine is {machine_status(view, machine)}" for machine in machines}
    room = asyncio.Semaphore(AT_ONCE)

    async def ask_one(agent: Presence) -> None:
        async with room:
            try:
                limits = await ask(backend.link, agent, PATH, NetLimits)
                told[agent.id] = {unit.unit: unit for unit in limits.units}
            except AgentAway as error:
                told[agent.id] = error.message

    async with asyncio.TaskGroup() as tasks:
        for machine in machines & view.presence.keys():
            tasks.create_task(ask_one(view.presence[machine].value))
    return told


def net_views(view: ClusterView, name: str, told: Told) -> Iterator[NetView]:
    """Yield a unit's bandwidth on each machine that has a live placement of it, or once without a machine."""
    entry = view.units.get(name)
    spec = view.spec(name, entry.value.spec) if entry else None
    if entry is None or spec is None or is_template(name):
        return
    unit = entry.value
    wanted = spec.bandwidth if unit.bandwidth is None else unit.bandwidth
    live = [held.value for held in view.placements_of(name).values() if held.value.wanted is not Wanted.GONE]
    for placement in sorted(live, key=lambda placement: -placement.epoch):
        text = view.spec(name, placement.spec)
        said = told.get(placement.machine, "its agent was not asked")
        in_force = None if isinstance(said, str) else said.get(name)
        yield NetView(
            unit=name,
            wanted=wanted,
            set_live=unit.bandwidth is not None,
            machine=placement.machine,
            machine_name=view.machine_name(placement.machine),
            ordered=(text.bandwidth if text else Bandwidth())
            if placement.bandwidth is None
            else placement.bandwidth,
            in_force=in_force,
            why=said if isinstance(said, str) else "" if in_force else "its agent has no copy of it to shape",
        )
    if not live:
        yield NetView(unit=name, wanted=wanted, set_live=unit.bandwidth is not None)


def _says_something(shown: NetView) -> bool:
    held = shown.in_force
    return bool(
        shown.wanted
        or shown.ordered
        or shown.set_live
        or (held and (held.egress or held.egress_limit or held.ingress or held.ingress_limit))
    )
