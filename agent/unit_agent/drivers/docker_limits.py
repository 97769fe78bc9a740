"""A unit's limits in the Docker Engine's words (HostConfig), and which of them an Engine did not take. Pure.

Memory and swap are one bound for the Engine (MemorySwap counts both). A quota goes as CpuPeriod and CpuQuota:
NanoCpus may not exceed the cores of the host, which systemd allows. A weight goes as shares by systemd's rule
(weight 100 is 1024 shares); on v2 runc turns them into a weight again, by a rule of its own
(ConvertCPUSharesToCgroupV2Value). What its kernel lacks the Engine leaves out of the container it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from unitfleet.limits import UNLIMITED, blkio_weight, cpu_shares
from unitfleet.spec import ContainerSpec, ResourceLimits

PERIOD_US = 100_000  # the Engine's default, and systemd's

_KEYS = {
    "Memory": "MemoryMax",
    "MemorySwap": "MemorySwapMax",
    "CpuQuota": "CPUQuota",
    "CpuShares": "CPUWeight",
    "PidsLimit": "TasksMax",
    "BlkioWeight": "IOWeight",
    "BlkioDeviceReadBps": "IOReadBandwidthMax",
    "BlkioDeviceWriteBps": "IOWriteBandwidthMax",
    "BlkioDeviceReadIOps": "IOReadIOPSMax",
    "BlkioDeviceWriteIOps": "IOWriteIOPSMax",
}


def resource_config(
    container: ContainerSpec, limits: ResourceLimits, node: Callable[[str], str] = lambda path: path
) -> dict[str, Any]:
    """Return the fields of HostConfig; `node` gives the device node of the disk behind a path."""
    memory = container.memory or limits.memory_max
    swap = limits.memory_swap_max
    fields: dict[str, Any] = {
        "Memory": memory,
        "MemorySwap": 0 if swap is None else UNLIMITED if swap == UNLIMITED else memory + swap,
        "CpuPeriod": PERIOD_US if limits.cpu_quota else 0,
        "CpuQuota": round(limits.cpu_quota * PERIOD_US),
        "CpuShares": cpu_shares(limits.cpu_weight) if limits.cpu_weight else 0,
        "PidsLimit": container.pids_limit or limits.tasks_max,
        "BlkioWeight": blkio_weight(limits.io_weight) if limits.io_weight else 0,
        "BlkioDeviceReadBps": _rates(limits.io_read_bytes, node),
        "BlkioDeviceWriteBps": _rates(limits.io_write_bytes, node),
        "BlkioDeviceReadIOps": _rates(limits.io_read_ops, node),
        "BlkioDeviceWriteIOps": _rates(limits.io_write_ops, node),
    }
    return {name: value for name, value in fields.items() if value}


def asked_of_kernel(container: ContainerSpec, limits: ResourceLimits) -> tuple[str, ...]:
    """Return the fields of HostConfig that a kernel may lack, for `left_out` to look for."""
    fields = resource_config(container, limits)
    if limits.memory_max_percent:
        fields["Memory"] = 1
    return tuple(name for name in _KEYS if fields.get(name, UNLIMITED) != UNLIMITED)


def left_out(asked: Collection[str], host_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a unit's limits that were asked for, and that the container does not have."""
    return tuple(_KEYS[name] for name in asked if name in _KEYS and host_config.get(name) in (None, 0, [], -1))


def _rates(pairs: tuple[tuple[str, int], ...], node: Callable[[str], str]) -> list[dict[str, Any]]:
    return [{"Path": node(path), "Rate": rate} for path, rate in pairs]
