"""Agents and masters: killed, frozen, started anew, with a wrong clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from chaos.faults.fault import (
    MACHINES,
    MASTER_NAMES,
    Fault,
    Silencing,
    around_the_ttl,
    kind,
    no_time,
    past_the_ttl,
)
from chaos.rig import Rig, under_clock
from chaos.witness.witness import Witness
from harness.daemon import Daemon
from harness.etcd import SHM


def _agent(machine: str) -> tuple[str, ...]:
    return (f"agent {machine}",)


@kind("agent-killed", MACHINES, around_the_ttl, _agent)
@dataclass(slots=True)
class AgentKilled(Silencing):
    """kill -9 of an agent, started again later."""

    at_once: bool = field(default=False, init=False)  # on a busy machine an agent starts in seconds

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.down.add(self.target)
        await asyncio.to_thread(rig.machine(self.target).agent.kill)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.down.discard(self.target)
        rig.machine(self.target).agent.start()


@kind("agent-restarted", MACHINES, no_time, _agent)
@dataclass(slots=True)
class AgentRestarted(Silencing):
    """An agent is stopped in order and started at once, as by an upgrade."""

    at_once: bool = field(default=False, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.down.add(self.target)
        await asyncio.to_thread(rig.machine(self.target).agent.stop)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.down.discard(self.target)
        rig.machine(self.target).agent.start()


@kind("agent-frozen", MACHINES, around_the_ttl, _agent)
@dataclass(slots=True)
class AgentFrozen(Silencing):
    """SIGSTOP of an agent, SIGCONT later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(rig.machine(self.target).agent.pause)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.machine(self.target).agent.resume()


@kind(
    "agent-clock", [f"{m} {by}" for m in MACHINES for by in ("+1h", "-1h")], past_the_ttl, lambda t: _agent(t[:2])
)
@dataclass(slots=True)
class AgentClock(Silencing):
    """An agent is started with a wall clock that is an hour off, and later with the right one."""

    at_once: bool = field(default=False, init=False)

    async def begin(self, rig: Rig, witness: Witness) -> None:
        machine, offset = self.target.split()
        await _started_under(rig, rig.machine(machine).agent, under_clock(offset))

    async def end(self, rig: Rig, witness: Witness) -> None:
        await _started_under(rig, rig.machine(self.target.split()[0]).agent, ())


@kind("master-killed", MASTER_NAMES, around_the_ttl, lambda target: (target,))
@dataclass(slots=True)
class MasterKilled(Fault):
    """kill -9 of a master, started again later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.down.add(self.target)
        await asyncio.to_thread(rig.master(self.target).kill)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.master(self.target).start()
        rig.down.discard(self.target)


@kind("master-restarted", MASTER_NAMES, no_time, lambda target: (target,))
@dataclass(slots=True)
class MasterRestarted(Fault):
    """A master is stopped in order and started at once."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        rig.down.add(self.target)
        await asyncio.to_thread(rig.master(self.target).stop)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.master(self.target).start()
        rig.down.discard(self.target)


@kind("master-frozen", MASTER_NAMES, around_the_ttl, lambda target: (target,))
@dataclass(slots=True)
class MasterFrozen(Fault):
    """SIGSTOP of a master, SIGCONT later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        await asyncio.to_thread(rig.master(self.target).pause)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.master(self.target).resume()


@kind(
    "master-clock",
    [f"{m} {by}" for m in MASTER_NAMES for by in ("+1h", "-1h")],
    past_the_ttl,
    lambda target: (target.split()[0],),
)
@dataclass(slots=True)
class MasterClock(Fault):
    """A master is started with a wall clock that is an hour off, and later with the right one."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        master, offset = self.target.split()
        await _started_under(rig, rig.master(master), under_clock(offset))

    async def end(self, rig: Rig, witness: Witness) -> None:
        await _started_under(rig, rig.master(self.target.split()[0]), ())


@kind("leader-killed", ["the leader"], around_the_ttl, lambda target: MASTER_NAMES)
@dataclass(slots=True)
class LeaderKilled(Fault):
    """kill -9 of the master that leads, started again later."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        self.note = await _leading(rig)
        rig.down.add(self.note)
        await asyncio.to_thread(rig.master(self.note).kill)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.master(self.note).start()
        rig.down.discard(self.note)


@kind("leader-frozen", ["the leader"], past_the_ttl, lambda target: MASTER_NAMES)
@dataclass(slots=True)
class LeaderFrozen(Fault):
    """SIGSTOP of the master that leads past its lease, then SIGCONT: it wakes up as it was."""

    async def begin(self, rig: Rig, witness: Witness) -> None:
        self.note = await _leading(rig)
        await asyncio.to_thread(rig.master(self.note).pause)

    async def end(self, rig: Rig, witness: Witness) -> None:
        rig.master(self.note).resume()


async def _leading(rig: Rig) -> str:
    leader = await rig.cluster.leader()
    return leader.name if leader is not None else rig.cluster.masters[0].name


async def _started_under(rig: Rig, daemon: Daemon, under: tuple[str, ...]) -> None:
    rig.down.add(daemon.name)
    pid = daemon.pid
    await asyncio.to_thread(daemon.stop)
    for left in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):  # where it had to be killed
        (SHM / left).unlink(missing_ok=True)
    daemon.under = under
    daemon.start()
    rig.down.discard(daemon.name)
