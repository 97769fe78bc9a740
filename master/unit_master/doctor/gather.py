"""Gathers the facts: from the view of this master, and by bounded questions to etcd, agents and other masters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from unit_master.api.agents import AgentAway, AgentLink, ask
from unit_master.audit.trail import Trail
from unit_master.cache import Cache
from unit_master.doctor.examine import examine
from unit_master.doctor.facts import Facts, MachineFacts, MasterFacts, UnitFacts
from unit_master.machines import Clocks, plan_machines
from unit_master.peers import NoAnswer, Peers
from unit_master.view import ClusterView
from unit_master.views import Views, machine_views
from unitfleet.api import ErrorBody, MachineView
from unitfleet.errors import StoreError
from unitfleet.findings import Checkup, CheckupQuery, Diagnosis, MasterCheckup, skew
from unitfleet.model import MasterRecord, TargetState

AGENT_PATH = "/v1/checkup"
MASTER_PATH = "/v1/checkup"

ANSWER_S = 2.0
"""Together within the time for which unitctl waits before it asks another master."""

AT_ONCE = 64
"""Agents that are asked at the same time."""

ALL_S = 20.0
"""For all of them: who was not asked by then is told as such."""

FRESH_S = 3.0
"""Who asks again so soon gets the same answer."""


class Doctor:
    """Examines the cluster; one examination at a time, whoever asks."""

    def __init__(
        self,
        name: str,
        cache: Cache,
        trail: Trail,
        link: AgentLink,
        peers: Peers,
        now: Callable[[], float],
        grace_s: float,
        *,
        encrypted: bool = False,
        asks: Callable[[], Awaitable[bool | None]] | None = None,
    ) -> None:
        self._name = name
        self._cache = cache
        self._trail = trail
        self._link = link
        self._peers = peers
        self._now = now
        self._grace_s = grace_s
        self._encrypted = encrypted
        self._asks = asks
        self._turn = asyncio.Lock()
        self._last: tuple[float, Diagnosis] | None = None

    async def diagnose(self) -> Diagnosis:
        """Return what is found, or what was found a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self._last is None or loop.time() - self._last[0] > FRESH_S:
                findings = examine(await self._gather())
                revision = self._cache.view.revision
                told = Diagnosis(rev=revision, master=self._name, at=self._now(), findings=findings)
                self._last = loop.time(), told
            return self._last[1]

    async def own(self) -> MasterCheckup:
        """Return what this master says of itself."""
        trouble = await asyncio.to_thread(self._trail.trouble)
        return MasterCheckup(name=self._name, at=self._now(), version=version("unitfleet"), audit_trouble=trouble)

    async def _gather(self) -> Facts:
        view = self._cache.view
        members, machines, masters, asks = await asyncio.gather(
            self._cache.members(), self._machines(view), self._masters(view), self._etcd_asks()
        )
        at = asyncio.get_running_loop().time()
        absent_for = {machine: at - since for machine, since in self._cache.absent_since.items()}
        lost_for = self._cache.lost_for()
        clocks = Clocks(self._now(), absent_for, {}, self._grace_s, lost_for=lost_for)
        brake = plan_machines(view, clocks).brake
        return Facts(
            leader=view.leader.value.name if view.leader else "",
            stale_s=self._cache.stale_s(),
            members=members,
            machines=machines,
            masters=masters,
            units=units_of(view, self._now()),
            brake=brake.mode,
            brake_why=brake.why,
            unreadable=tuple(view.bad[key] for key in sorted(view.bad)),
            encrypted=self._encrypted,
            protected=view.is_protected,
            etcd_asks=asks,
        )

    async def _etcd_asks(self) -> bool | None:
        """Return whether etcd asks who somebody is, None where nobody can tell now."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                return await self._asks() if self._asks else None
        return None

    async def _machines(self, view: ClusterView) -> tuple[MachineFacts, ...]:
        turns = asyncio.Semaphore(AT_ONCE)
        until = asyncio.get_running_loop().time() + ALL_S
        asked = (self._machine(view, shown, turns, until) for shown in machine_views(view))
        return tuple(await asyncio.gather(*asked))

    async def _machine(
        self, view: ClusterView, shown: MachineView, turns: asyncio.Semaphore, until: float
    ) -> MachineFacts:
        present, images = view.presence.get(shown.id), view.images.get(shown.id)
        checkup, skew_s, trouble = None, 0.0, ""
        if present is not None:
            loop = asyncio.get_running_loop()
            try:
                async with turns:
                    if loop.time() > until:
                        raise AgentAway(f"its turn did not come within {ALL_S:g} s")
                    began, sent = loop.time(), self._now()
                    checkup = await ask(self._link, present.value, AGENT_PATH, Checkup, answer_s=ANSWER_S)
                    skew_s = skew(checkup.at, sent, loop.time() - began)
            except AgentAway as error:
                trouble = error.message
        return MachineFacts(
            name=shown.name,
            status=shown.status,
            reason=shown.reason,
            closed=shown.closed,
            drivers=shown.drivers,
            version=shown.versions.get("agent", ""),
            has_policy=present is None or present.value.policy is not None,
            missing=images.value.missing if images else {},
            checkup=checkup,
            skew_s=skew_s,
            trouble=trouble,
        )

    async def _masters(self, view: ClusterView) -> tuple[MasterFacts, ...]:
        others = [entry.value for name, entry in sorted(view.masters.items()) if name != self._name]
        own, *rest = await asyncio.gather(self.own(), *(self._master(other) for other in others))
        assert isinstance(own, MasterCheckup)
        found = [MasterFacts(name=own.name, version=own.version, audit_trouble=own.audit_trouble)]
        return (*found, *(each for each in rest if isinstance(each, MasterFacts)))

    async def _master(self, other: MasterRecord) -> MasterFacts:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), self._now()
        try:
            async with asyncio.timeout(ANSWER_S):
                told = await self._peers.ask(other, MASTER_PATH, CheckupQuery(), MasterCheckup)
        except NoAnswer as error:
            return MasterFacts(name=other.name, version=other.version, trouble=str(error))
        except TimeoutError:
            trouble = f"no answer within {ANSWER_S:g} s"
            return MasterFacts(name=other.name, version=other.version, trouble=trouble)
        if isinstance(told, ErrorBody):
            return MasterFacts(name=other.name, version=other.version, trouble=told.message)
        skew_s = skew(told.at, sent, loop.time() - began)
        return MasterFacts(name=other.name, version=told.version, skew_s=skew_s, audit_trouble=told.audit_trouble)


def units_of(view: ClusterView, now: float) -> tuple[UnitFacts, ...]:
    """Return every unit that is to be somewhere."""
    views = Views(view)
    found = []
    for name in views.names():
        shown, entry = views.unit(name), view.units.get(name)
        if shown is None or entry is None or shown.is_template:
            continue
        spec = view.spec(name, entry.value.spec)
        found.append(
            UnitFacts(
                name=name,
                phase=shown.phase,
                why=shown.why,
                for_s=max(0.0, now - shown.since) if shown.since else 0.0,
                ok=shown.ok,
                drivers=spec.requirements.drivers if spec else (),
                wanted=spec is not None and entry.value.target in (TargetState.LOADED, TargetState.LAUNCHED),
            )
        )
    return tuple(found)
