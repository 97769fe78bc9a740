"""Which kernel files get which text for a unit's limits, on v1 and on v2, as a pure function.

Sources: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst; weights as systemd turns them into
each other (`cgroup_cpu_weight_to_shares`, `cgroup_weight_io_to_blkio`, `BFQ_WEIGHT` of src/core/cgroup.c).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass

from unitfleet.limits import UNLIMITED, blkio_weight, cpu_shares
from unitfleet.spec import ResourceLimits

PERIOD_US = 100_000  # systemd's default

Has = Callable[[str, str], bool]
"""Whether the unit's group has, of a controller, a file of this name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`text` is written to `file` of the unit's group in the controller's hierarchy."""

    controller: str
    file: str
    text: str


def needs(limits: ResourceLimits) -> tuple[tuple[str, str], ...]:
    """Return what must be limited, and by which controller (v1's name): a unit does not run without."""
    wanted = (
        ("memory", "the memory", limits.memory_max or limits.memory_max_percent),
        ("cpu", "the processor time", limits.cpu_quota),
        ("pids", "the number of tasks", limits.tasks_max),
    )
    return tuple((controller, words) for controller, words, value in wanted if value)


def refusal(unit: str, limits: ResourceLimits, controllers: Collection[str] = ()) -> str:
    """Return why limits can't be kept where no groups but these controllers' can be made, or ""."""
    if limits == ResourceLimits():
        return ""
    wanted = needs(limits)
    if not controllers:
        what = wanted[0][1] if wanted else "the resources"
        return f"cannot limit {what} of {unit}: this agent may not make cgroups (run it as root)"
    for controller, what in wanted:
        if controller not in controllers:
            return f"cannot limit {what} of {unit}: this host has no cgroup controller {controller!r}"
    return ""


def devices(limits: ResourceLimits) -> tuple[str, ...]:
    """Return each path whose device is limited, once."""
    lists = (limits.io_read_bytes, limits.io_write_bytes, limits.io_read_ops, limits.io_write_ops)
    return tuple(dict.fromkeys(path for pairs in lists for path, _ in pairs))


def plan(
    limits: ResourceLimits, has: Has, device: Mapping[str, str], unified: Container[str]
) -> tuple[tuple[Setting, ...], tuple[str, ...]]:
    """Return the settings, in the order they are to be written, and what this kernel can't keep, in words.

    `device` gives `MAJOR:MINOR` by path, `unified` holds the controllers that are v2's. What `needs` names is
    there: a unit that needs more has been refused.
    """
    settings: list[Setting] = []
    notes: list[str] = []

    def put(key: str, controller: str, file: str, text: str) -> None:
        if has(controller, file):
            settings.append(Setting(controller, file, text))
        else:
            notes.append(f"{key}= is not kept here: this host's kernel has no {file}")

    if limits.memory_max:
        put(
            "MemoryMax",
            "memory",
            "memory.max" if "memory" in unified else "memory.limit_in_bytes",
            str(limits.memory_max),
        )
    if limits.memory_swap_max is not None and limits.memory_swap_max != UNLIMITED:
        if "memory" in unified:
            put("MemorySwapMax", "memory", "memory.swap.max", str(limits.memory_swap_max))
        elif limits.memory_max:
            both = limits.memory_max + limits.memory_swap_max
            put("MemorySwapMax", "memory", "memory.memsw.limit_in_bytes", str(both))
        else:
            notes.append("MemorySwapMax= is not kept here: without MemoryMax= only control groups v2 can")
    if limits.cpu_quota:
        quota = max(1000, round(limits.cpu_quota * PERIOD_US))
        if "cpu" in unified:
            put("CPUQuota", "cpu", "cpu.max", f"{quota} {PERIOD_US}")
        else:
            put("CPUQuota", "cpu", "cpu.cfs_period_us", str(PERIOD_US))
            put("CPUQuota", "cpu", "cpu.cfs_quota_us", str(quota))
    if limits.cpu_weight:
        if "cpu" in unified:
            put("CPUWeight", "cpu", "cpu.weight", str(limits.cpu_weight))
        else:
            put("CPUWeight", "cpu", "cpu.shares", str(cpu_shares(limits.cpu_weight)))
    if limits.tasks_max:
        put("TasksMax", "pids", "pids.max", str(limits.tasks_max))
    io = "io" if "io" in unified else "blkio"
    if limits.io_weight:
        put("IOWeight", io, *_io_weight(limits.io_weight, has, io))
    for key, file, text in _io_max(limits, device) if io == "io" else _throttles(limits, device):
        put(key, io, file, text)
    return tuple(settings), tuple(dict.fromkeys(notes))


def _io_weight(weight: int, has: Has, controller: str) -> tuple[str, str]:
    """Return file and text: the scheduler BFQ has files of its own, with weights from 1 to 1000."""
    bfq = weight if weight <= 100 else 100 + (weight - 100) * (1000 - 100) // (10000 - 100)
    if controller == "io":
        other = has("io", "io.bfq.weight") and not has("io", "io.weight")
        return ("io.bfq.weight", f"default {bfq}") if other else ("io.weight", f"default {weight}")
    other = has("blkio", "blkio.bfq.weight") and not has("blkio", "blkio.weight")
    return ("blkio.bfq.weight", str(bfq)) if other else ("blkio.weight", str(blkio_weight(weight)))


def _throttles(limits: ResourceLimits, device: Mapping[str, str]) -> list[tuple[str, str, str]]:
    lists = (
        ("IOReadBandwidthMax", "blkio.throttle.read_bps_device", limits.io_read_bytes),
        ("IOWriteBandwidthMax", "blkio.throttle.write_bps_device", limits.io_write_bytes),
        ("IOReadIOPSMax", "blkio.throttle.read_iops_device", limits.io_read_ops),
        ("IOWriteIOPSMax", "blkio.throttle.write_iops_device", limits.io_write_ops),
    )
    return [(key, file, f"{device[path]} {amount}") for key, file, pairs in lists for path, amount in pairs]


def _io_max(limits: ResourceLimits, device: Mapping[str, str]) -> list[tuple[str, str, str]]:
    lists = (
        ("IOReadBandwidthMax", "rbps", limits.io_read_bytes),
        ("IOWriteBandwidthMax", "wbps", limits.io_write_bytes),
        ("IOReadIOPSMax", "riops", limits.io_read_ops),
        ("IOWriteIOPSMax", "wiops", limits.io_write_ops),
    )
    return [(key, "io.max", f"{device[path]} {word}={n}") for key, word, pairs in lists for path, n in pairs]
