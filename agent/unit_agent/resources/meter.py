"""What a host offers and uses: psutil for CPU, memory and disk, the uplink's counters, the kernel's pressure."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from unit_agent.cgroups.files import content, some_avg60
from unit_agent.resources import network
from unitfleet.model import Capacity, Resources

LOOK_AGAIN_S = 60.0
"""How often the uplink and its speed are looked for anew: a link may come up late, or as another interface."""


def capacity(state_dir: Path, *, egress: int = 0, ingress: int = 0, address: str = "") -> Capacity:
    """Return what this machine offers; the disk is the one under `state_dir`.

    `egress` and `ingress` are what the configuration says, bit/s; 0: the speed of the uplink, which is the
    interface of the default route or the one that carries `address`.
    """
    interface = network.uplink(address)
    speed = network.speed(interface) if interface else 0
    return Capacity(
        cpu=float(psutil.cpu_count() or 1),
        memory=psutil.virtual_memory().total,
        disk=psutil.disk_usage(str(state_dir)).total,
        egress=egress or speed,
        ingress=ingress or speed,
    )


class Meter:
    """Measures what is used of a machine: each `measure` gives the means since the one before.

    Whoever wants means of an interval of his own has a meter of his own.
    """

    def __init__(
        self,
        machine: str,
        state_dir: Path,
        *,
        egress: int = 0,
        ingress: int = 0,
        address: str = "",
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._state_dir = state_dir
        self._said = (egress, ingress)
        self._address = address
        self._proc = proc
        self._clock = clock
        self._cpu = _cpu_times()
        self._uplink, self._passed = "", None
        self._look()
        self._passed, self._at = self._counters(), clock()

    def _look(self) -> None:
        """Find the uplink and what the machine offers."""
        egress, ingress = self._said
        uplink = network.uplink(self._address, self._proc)
        if uplink != self._uplink:
            self._uplink, self._passed = uplink, None  # the counters of another interface say nothing of this one
        self._capacity = capacity(self._state_dir, egress=egress, ingress=ingress, address=self._address)
        self._looked = self._clock()

    def measure(self) -> Resources:
        """Return capacity and use as of now."""
        if self._clock() - self._looked > LOOK_AGAIN_S:
            self._look()
        memory = psutil.virtual_memory()
        egress, ingress = self._rates()
        return Resources(
            id=self._machine,
            capacity=self._capacity,
            cpu_used=round(self._busy() * self._capacity.cpu, 2),
            memory_used=memory.total - memory.available,
            disk_used=psutil.disk_usage(str(self._state_dir)).used,
            load=psutil.getloadavg()[0],
            egress_used=egress,
            ingress_used=ingress,
            pressure=pressure(self._proc),
        )

    def _busy(self) -> float:
        """Return the share of all cores' time that was not idle since the last call."""
        (total, idle), before = _cpu_times(), self._cpu
        passed = total - before[0]
        if passed <= 0:
            return 0.0
        self._cpu = (total, idle)
        return min(1.0, max(0.0, 1.0 - (idle - before[1]) / passed))

    def _rates(self) -> tuple[int, int]:
        """Return bit/s out and in over the uplink since the last call, 0 where there is none."""
        passed, at = self._counters(), self._clock()
        before, since = self._passed, at - self._at
        self._passed, self._at = passed, at
        if before is None or passed is None or since <= 0:
            return 0, 0
        return (
            round(max(0, passed.sent - before.sent) * 8 / since),
            round(max(0, passed.received - before.received) * 8 / since),
        )

    def _counters(self) -> network.Passed | None:
        return network.interfaces(content(f"{self._proc}/self/net/dev")).get(self._uplink)


def pressure(proc: Path = Path("/proc")) -> dict[str, float]:
    """Return the share of the last minute in which somebody waited for cpu, memory, io, in percent.

    {} where the kernel does not tell (CONFIG_PSI off, or `psi=0`).
    """
    found = {what: some_avg60(content(f"{proc}/pressure/{what}")) for what in ("cpu", "memory", "io")}
    return {what: share for what, share in found.items() if share >= 0}


def _cpu_times() -> tuple[float, float]:
    """Return the seconds of all cores together, and those of them that were idle or waited for a disk."""
    times = psutil.cpu_times()
    # guest time is counted in user time as well
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total, times.idle + getattr(times, "iowait", 0.0)
