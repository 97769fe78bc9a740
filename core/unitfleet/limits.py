"""What a unit may use at most: the keys of systemd.resource-control(5) in `[Service]`, in either driver's terms.

Sizes have the base of 1024, amounts a second that of 1000, as systemd reads them. The keys of old become the new
ones by systemd's own rules (`cgroup_cpu_shares_to_weight`, `cgroup_weight_blkio_to_io` of src/core/cgroup.c); a
new key wins over its old spelling. A few values only systemd carries out: `needs_systemd` tells them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from unitfleet import quantities
from unitfleet.model import Requirements
from unitfleet.problems import BadValue
from unitfleet.quadlet import MIN_MEMORY as MIN_CONTAINER_MEMORY
from unitfleet.section import Section, absolute
from unitfleet.spec import ContainerSpec, ResourceLimits
from unitfleet.unitfile import Option

T = TypeVar("T")
D = TypeVar("D")

KEYS = frozenset(
    (
        "MemoryMax MemoryLimit MemorySwapMax CPUQuota CPUWeight CPUShares TasksMax IOWeight BlockIOWeight "
        "IOReadBandwidthMax IOWriteBandwidthMax BlockIOReadBandwidth BlockIOWriteBandwidth IOReadIOPSMax "
        "IOWriteIOPSMax"
    ).split()
)

UNLIMITED = -1
"""`MemorySwapMax=infinity`."""

USUAL_WEIGHT = 100
MIN_MEMORY = 1024**2
MIN_QUOTA = 0.01  # cores: the kernel takes no less than 1 ms of each 100 ms

_PERCENT = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,2})?)%", re.ASCII)
_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?([KMGTPE]?)", re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_CPU_SHARES = 1024  # v1's, that stand for USUAL_WEIGHT
_BLKIO_WEIGHT = 500


def read(section: Section, container: ContainerSpec | None = None) -> ResourceLimits:
    """Read the limits of a `[Service]` section, beside `[Container]` when that is given."""
    contained = container is not None
    reading = _Reading(section, contained)
    read_bytes = reading.devices(_bytes, "IOReadBandwidthMax", "BlockIOReadBandwidth")
    write_bytes = reading.devices(_bytes, "IOWriteBandwidthMax", "BlockIOWriteBandwidth")
    memory, percent = reading.value(_memory, (0, 0.0), "MemoryMax", "MemoryLimit")
    limits = ResourceLimits(
        memory_max=memory,
        memory_max_percent=percent,
        memory_swap_max=reading.value(_swap, None, "MemorySwapMax"),
        cpu_quota=reading.value(_quota, 0.0, "CPUQuota"),
        cpu_weight=reading.value(_weight, 0, "CPUWeight") or reading.value(_shares, 0, "CPUShares"),
        tasks_max=reading.value(_tasks, 0, "TasksMax"),
        io_weight=reading.value(_weight, 0, "IOWeight") or reading.value(_blkio_weight, 0, "BlockIOWeight"),
        io_read_bytes=read_bytes,
        io_write_bytes=write_bytes,
        io_read_ops=reading.devices(_count, "IOReadIOPSMax"),
        io_write_ops=reading.devices(_count, "IOWriteIOPSMax"),
    )
    if container is not None:
        _check_container(section, limits, container)
    return limits


def needs_systemd(option: Option) -> bool:
    """Tell whether one of `KEYS` has a value that only systemd carries out: shares of what the host has."""
    if option.name == "CPUWeight":
        return option.value == "idle"
    return option.name in ("TasksMax", "MemorySwapMax") and _PERCENT.fullmatch(option.value) is not None


def asked(needs: Requirements, limits: ResourceLimits) -> Requirements:
    """Return what a unit asks of a machine: its memory limit, unless it says otherwise by Memory=.

    A quota of processor time is no request: it bounds what is lent, and most units use far less.
    """
    if needs.memory or not limits.memory_max:
        return needs
    return msgspec.structs.replace(needs, memory=limits.memory_max)


def on_machine(limits: ResourceLimits, memory: int) -> ResourceLimits:
    """Return the limits on a machine with so many bytes of memory: `MemoryMax=50%` in bytes."""
    if not limits.memory_max_percent:
        return limits
    share = max(MIN_MEMORY, int(memory * limits.memory_max_percent / 100))
    return msgspec.structs.replace(limits, memory_max=share, memory_max_percent=0.0)


def cpu_shares(weight: int) -> int:
    """Return v1's cpu.shares of a weight (systemd's `cgroup_cpu_weight_to_shares`)."""
    return min(262144, max(2, weight * _CPU_SHARES // USUAL_WEIGHT))


def blkio_weight(weight: int) -> int:
    """Return v1's blkio.weight of an I/O weight (systemd's `cgroup_weight_io_to_blkio`)."""
    return min(1000, max(10, weight * _BLKIO_WEIGHT // USUAL_WEIGHT))


class _Reading:
    """Reads keys that may have an old spelling."""

    def __init__(self, section: Section, contained: bool) -> None:
        self._section = section
        self._contained = contained

    def value(self, parse: Callable[[str], T], default: D, *names: str) -> T | D:
        """Read the last assignment to the first of `names` that has one."""
        for name in names:
            option = self._section.last(name)
            if option is not None and not self._left_to_systemd(option):
                return self._section.read(option, parse, default)
        return default

    def devices(self, parse: Callable[[str], int], *names: str) -> tuple[tuple[str, int], ...]:
        """Read lists of `PATH AMOUNT`; the last amount of a path counts."""
        found: dict[str, int] = {}
        for name in reversed(names):  # the new spelling wins
            for option in self._section.listed(name):
                pair = self._section.read(option, lambda text: _device(text, parse), None)
                if pair is not None:
                    found[pair[0]] = pair[1]
        return tuple((path, amount) for path, amount in found.items() if amount)

    def _left_to_systemd(self, option: Option) -> bool:
        """Tell whether the unit goes to hosts with systemd only, which reads this value itself."""
        return not self._contained and needs_systemd(option)


def _check_container(section: Section, limits: ResourceLimits, container: ContainerSpec) -> None:
    """Refuse what contradicts `[Container]`, or what the Engine has no word for."""
    memory = section.last("MemoryMax") or section.last("MemoryLimit")
    if memory is not None:
        said = limits.memory_max or limits.memory_max_percent
        if container.memory and said and container.memory != limits.memory_max:
            section.problems.error(
                memory.line,
                f"{memory.name}={memory.value[:40]} is not what Memory= in [Container] says",
                "leave out one of the two",
            )
        elif 0 < limits.memory_max < MIN_CONTAINER_MEMORY:
            section.problems.error(
                memory.line,
                f"{memory.name}=: {memory.value[:40]!r} is too little for a container: at least 6M, as in 512M",
            )
    swap = section.last("MemorySwapMax")
    limited = container.memory or limits.memory_max or limits.memory_max_percent
    if swap is not None and limits.memory_swap_max is not None and not limited:
        section.problems.error(
            swap.line,
            "MemorySwapMax= beside [Container] needs a limit of memory: the Engine bounds both together",
            "add MemoryMax=, or leave it out",
        )
    tasks = section.last("TasksMax")
    if tasks is not None and container.pids_limit and container.pids_limit != limits.tasks_max:
        section.problems.error(
            tasks.line,
            f"TasksMax={tasks.value[:40]} is not what PidsLimit= in [Container] says",
            "leave out one of the two",
        )


def _memory(text: str) -> tuple[int, float]:
    """Return bytes and percent, one of them 0; both 0 for infinity."""
    if text == "infinity":
        return 0, 0.0
    match = _PERCENT.fullmatch(text)
    if match is not None:
        if not 0 < float(match[1]) <= 100:
            raise BadValue(f"{text[:40]!r} is no share of the machine's memory: write 1% to 100%")
        return 0, float(match[1])
    value = _size(text)
    if value < MIN_MEMORY:
        raise BadValue(f"{text[:40]!r} is too little: at least 1M, as in 512M or 2G")
    return value, 0.0


def _swap(text: str) -> int:
    if _PERCENT.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is not supported beside [Container]: write a size, as in 512M, or infinity")
    return UNLIMITED if text == "infinity" else _size(text)


def _size(text: str) -> int:
    try:
        return quantities.size(text)
    except BadValue:
        raise BadValue(
            f"{text[:40]!r} is no size: write 512M or 1.5G (K, M, G of 1024), 50% or infinity"
        ) from None


def _quota(text: str) -> float:
    match = _PERCENT.fullmatch(text)
    if match is None:
        hint = f": write {float(text) * 100:g}%" if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,2})?", text) else ""
        raise BadValue(f"{text[:40]!r} is no share of a core{hint or ': write 50%, or 200% for two cores'}")
    cores = float(match[1]) / 100
    if cores < MIN_QUOTA:
        raise BadValue(f"{text[:40]!r} is too little: at least 1% of a core")
    return cores


def _weight(text: str) -> int:
    if text == "idle":
        raise BadValue("'idle' is not supported beside [Container]: write a whole number from 1 to 10000")
    return _number(text, 1, 10000, f"weight; {USUAL_WEIGHT} is everybody's")


def _shares(text: str) -> int:
    return min(10000, max(1, _number(text, 2, 262144, "share; CPUWeight= is its new name") * 100 // _CPU_SHARES))


def _blkio_weight(text: str) -> int:
    weight = _number(text, 10, 1000, "weight; IOWeight= is its new name")
    return min(10000, max(1, weight * USUAL_WEIGHT // _BLKIO_WEIGHT))


def _tasks(text: str) -> int:
    if text == "infinity":
        return 0
    if _PERCENT.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is not supported beside [Container]: write a number of tasks, as in 512")
    return _number(text, 1, 2**22, "number of tasks, or infinity")


def _number(text: str, low: int, high: int, what: str) -> int:
    try:
        return quantities.whole(text, low, high)
    except BadValue as error:
        raise BadValue(f"{error} ({what})") from None


def _device(text: str, parse: Callable[[str], int]) -> tuple[str, int]:
    path, _, amount = text.strip().strip('"').rpartition(" ")
    if not path:
        raise BadValue(f"{text[:60]!r} is no device with an amount: write /dev/sda 10M, or a path on it")
    return absolute(path.strip().strip('"')), parse(amount)


def _bytes(text: str) -> int:
    return _amount(text, "bytes a second, as in 5M (K, M, G of 1000), or infinity")


def _count(text: str) -> int:
    return _amount(text, "operations a second, as in 500 or 1K, or infinity")


def _amount(text: str, form: str) -> int:
    """Read an amount a second; 0 for infinity."""
    if text == "infinity":
        return 0
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise BadValue(f"{text[:40]!r} is no amount: write {form}")
    unit: int = 1000 ** _POWERS[match[3]]
    fraction = match[2] or ""
    value = int(match[1]) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
    if not 0 < value < 2**63:
        raise BadValue(f"{text[:40]!r} lets nothing through or is too much: write {form}")
    return value
