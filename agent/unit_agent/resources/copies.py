"""The figures of copies: counters by control group, process tree and network namespace, and rates of them.

`CopyMeter.sample` blocks for about 0.1 ms a copy and belongs in a thread. What changes seldom (limits, open
files) is looked at seldom. A copy that is started again is another process: its counters begin at 0.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unit_agent.cgroups.files import content
from unit_agent.cgroups.places import UNIFIED
from unit_agent.cgroups.reader import UNKNOWN, CgroupReader, Group, GroupFigures, GroupLimits
from unit_agent.driver import Copy
from unit_agent.resources import network, processes
from unit_agent.resources.processes import Seen
from unitfleet.api import UnitFigures

SELDOM_S = 10.0
"""How old limits and open files may be."""

SUPERVISOR = b"unit_agent/supervisor/start.py"


@dataclass(slots=True)
class _Followed:
    """What is kept of one copy between samples."""

    copy_id: str
    pid: int
    group: Group | None
    own_network: bool
    root: int  # the process that all others of the copy are below: a supervisor, or its own first one
    at: float = 0.0  # of the last sample, by the clock of rates; 0: none yet
    cpu_s: float = UNKNOWN
    passed: network.Passed | None = None
    looked: float = -1e9
    limits: GroupLimits = field(default_factory=GroupLimits)
    files: tuple[int, int] = (UNKNOWN, 0)
    io: dict[int, tuple[int, int]] = field(default_factory=dict)  # what living processes read and wrote
    io_ended: tuple[int, int] = (0, 0)


class CopyMeter:
    """Samples copies. `reader` is None on hosts without control groups; `clock` is for rates, `now` for people."""

    def __init__(
        self,
        reader: CgroupReader | None,
        *,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._proc = proc
        self._clock = clock
        self._now = now
        self._followed: dict[str, _Followed] = {}
        self._network = self._namespace("self")

    def sample(self, copies: Sequence[Copy], oom_kills: Mapping[str, int]) -> tuple[UnitFigures, ...]:
        """Return the figures of the copies that have a process. `oom_kills`: those that ended a copy."""
        running = [copy for copy in copies if copy.pid and copy.executing]
        for copy in running:
            known = self._followed.get(copy.unit)
            if known is None or (known.copy_id, known.pid) != (copy.id, copy.pid):
                self._followed[copy.unit] = self._follow(copy)
        for unit in self._followed.keys() - {copy.unit for copy in running}:
            del self._followed[unit]
        alone = {copy.unit for copy in running if _needs_processes(self._followed[copy.unit].group)}
        table = processes.table(self._proc) if alone else {}
        return tuple(
            self._measure(copy, table if copy.unit in alone else None, oom_kills.get(copy.unit, 0))
            for copy in running
        )

    # ------------------------------------------------------------------ once a process

    def _follow(self, copy: Copy) -> _Followed:
        group = self._reader.find(copy.pid, copy.id) if self._reader else None
        namespace = self._namespace(str(copy.pid))
        return _Followed(
            copy_id=copy.id,
            pid=copy.pid,
            group=group,
            own_network=bool(namespace) and namespace != self._network,
            root=self._root(copy.pid),
        )

    def _namespace(self, pid: str) -> int:
        try:
            return os.stat(f"{self._proc}/{pid}/ns/net").st_ino
        except OSError:
            return 0

    def _root(self, pid: int) -> int:
        """Return the supervisor of the process, or the process itself when none is above it."""
        seen = processes.look(pid, self._proc)
        if seen is not None and SUPERVISOR in content(f"{self._proc}/{seen.parent}/cmdline"):
            return seen.parent
        return pid

    # ------------------------------------------------------------------ each sample

    def _measure(self, copy: Copy, table: dict[int, list[Seen]] | None, oom_kills: int) -> UnitFigures:
        known = self._followed[copy.unit]
        at = self._clock()
        counted = self._reader.figures(known.group) if self._reader and known.group else GroupFigures()
        family = None if table is None else self._family(known, table)
        if family is not None:
            counted = self._completed(counted, known, family)
        passed = network.of_process(copy.pid, self._proc) if known.own_network else None
        if at - known.looked >= SELDOM_S:
            self._look(known, family, at)
        since = at - known.at if known.at else 0.0
        cpu = (counted.cpu_s - known.cpu_s) / since if since > 0 and known.cpu_s >= 0 <= counted.cpu_s else 0.0
        sent, received = _rates(known.passed, passed, since)
        known.at, known.cpu_s, known.passed = at, counted.cpu_s, passed
        return UnitFigures(
            unit=copy.unit,
            at=self._now(),
            driver=copy.driver,
            id=copy.id,
            cgroup=known.group.path if known.group else "",
            image=copy.image,
            started_at=copy.since,
            cpu=round(max(0.0, cpu), 4),
            cpu_s=round(counted.cpu_s, 3),
            cpu_limit=max(0.0, known.limits.cpu),
            throttled_s=round(counted.throttled_s, 3),
            memory=counted.memory,
            memory_usage=counted.memory_usage,
            memory_limit=max(0, known.limits.memory),
            read_bytes=counted.read_bytes,
            write_bytes=counted.write_bytes,
            processes=counted.processes,
            open_files=known.files[0],
            open_files_limit=known.files[1],
            oom_kills=oom_kills + max(0, counted.oom_kills),
            restarts=copy.restarts,
            egress=sent,
            ingress=received,
            sent_bytes=passed.sent if passed else UNKNOWN,
            received_bytes=passed.received if passed else UNKNOWN,
            sent_dropped=passed.sent_dropped if passed else 0,
            received_dropped=passed.received_dropped if passed else 0,
            pressure=dict(counted.pressure),
        )

    def _family(self, known: _Followed, table: dict[int, list[Seen]]) -> list[Seen]:
        """Return the copy's processes. Its first process stands for the supervisor's word on what has ended."""
        family = processes.below(known.root, table)
        if known.root == known.pid and (own := processes.look(known.pid, self._proc)) is not None:
            family.append(own)
        return family

    def _completed(self, counted: GroupFigures, known: _Followed, family: list[Seen]) -> GroupFigures:
        """Fill in from the processes what no group of the copy's own tells."""
        cpu_s = sum(each.cpu_s + each.reaped_s for each in family)
        if known.root != known.pid and (supervisor := processes.look(known.root, self._proc)) is not None:
            cpu_s += supervisor.reaped_s
        resident = sum(each.resident for each in family)
        read, write = counted.read_bytes, counted.write_bytes
        if read < 0:
            read, write = self._io(known, family)
        return GroupFigures(
            cpu_s=counted.cpu_s if counted.cpu_s >= 0 else max(cpu_s, known.cpu_s),
            throttled_s=counted.throttled_s,
            memory=counted.memory if counted.memory >= 0 else resident,
            memory_usage=counted.memory_usage if counted.memory_usage >= 0 else resident,
            oom_kills=counted.oom_kills,
            processes=counted.processes if counted.processes >= 0 else len(family),
            read_bytes=read,
            write_bytes=write,
            pressure=counted.pressure,
        )

    def _io(self, known: _Followed, family: list[Seen]) -> tuple[int, int]:
        """Return what the processes read and wrote, those that have ended as of when they were last seen."""
        now = {each.pid: processes.io_bytes(each.pid, self._proc) for each in family}
        for pid in known.io.keys() - now.keys():
            known.io_ended = (known.io_ended[0] + known.io[pid][0], known.io_ended[1] + known.io[pid][1])
        known.io = {pid: told for pid, told in now.items() if min(told) >= 0}
        if not known.io:
            return UNKNOWN, UNKNOWN
        return (
            known.io_ended[0] + sum(read for read, _ in known.io.values()),
            known.io_ended[1] + sum(written for _, written in known.io.values()),
        )

    def _look(self, known: _Followed, family: list[Seen] | None, at: float) -> None:
        """Look at what changes seldom, and again for a group: a process joins its own a moment after it began."""
        if self._reader is not None:
            known.group = known.group or self._reader.find(known.pid, known.copy_id)
            known.limits = self._reader.limits(known.group) if known.group else GroupLimits()
        if family is not None:
            pids = [each.pid for each in family]
        else:
            pids = processes.members(list(known.group.directories.values())) if known.group else []
        known.files = processes.open_files(pids, self._proc)
        known.looked = at


def _needs_processes(group: Group | None) -> bool:
    """Tell whether a group leaves CPU or memory out: on v1 a unit may have one for some controllers alone."""
    return group is None or not (UNIFIED in group.directories or {"cpuacct", "memory"} <= group.directories.keys())


def _rates(before: network.Passed | None, after: network.Passed | None, since: float) -> tuple[int, int]:
    """Return bit/s out and in, -1 where the network is not the copy's own."""
    if after is None:
        return UNKNOWN, UNKNOWN
    if before is None or since <= 0:
        return 0, 0
    return (
        round(max(0, after.sent - before.sent) * 8 / since),
        round(max(0, after.received - before.received) * 8 / since),
    )
