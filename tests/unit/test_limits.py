"""Limits in unit texts: what systemd.resource-control(5) says, and what neither driver can keep."""

from __future__ import annotations

import pytest

from unitfleet import accept
from unitfleet.errors import InvalidUnit
from unitfleet.limits import asked, blkio_weight, cpu_shares, on_machine
from unitfleet.model import Requirements
from unitfleet.spec import ResourceLimits, UnitSpec

MIB, GIB = 1 << 20, 1 << 30
SERVICE = "[Service]\nExecStart=/bin/sleep 1000\n"
CONTAINER = "[Container]\nImage=adserver:1\n"


def read(lines: str, base: str = SERVICE) -> UnitSpec:
    return accept.read("a.service", base + ("[Service]\n" if base is CONTAINER else "") + lines)


def refusal(lines: str, base: str = SERVICE) -> str:
    with pytest.raises(InvalidUnit) as caught:
        read(lines, base)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


READ = {
    "a size has the base of 1024": ("MemoryMax=64M", ResourceLimits(memory_max=64 * MIB)),
    "a fraction of a size": ("MemoryMax=1.5G", ResourceLimits(memory_max=3 * GIB // 2)),
    "plain bytes": ("MemoryMax=67108864", ResourceLimits(memory_max=64 * MIB)),
    "no limit": ("MemoryMax=infinity", ResourceLimits()),
    "the last assignment counts": ("MemoryMax=64M\nMemoryMax=32M", ResourceLimits(memory_max=32 * MIB)),
    "an empty one takes it back": ("MemoryMax=64M\nMemoryMax=", ResourceLimits()),
    "a share of the machine": ("MemoryMax=12.5%", ResourceLimits(memory_max_percent=12.5)),
    "the old name": ("MemoryLimit=64M", ResourceLimits(memory_max=64 * MIB)),
    "the new name wins": ("MemoryMax=64M\nMemoryLimit=1G", ResourceLimits(memory_max=64 * MIB)),
    "no swap at all": ("MemorySwapMax=0", ResourceLimits(memory_swap_max=0)),
    "any swap": ("MemorySwapMax=infinity", ResourceLimits(memory_swap_max=-1)),
    "half a core": ("CPUQuota=50%", ResourceLimits(cpu_quota=0.5)),
    "two cores and a bit": ("CPUQuota=212.5%", ResourceLimits(cpu_quota=2.125)),
    "a weight": ("CPUWeight=200", ResourceLimits(cpu_weight=200)),
    "shares are a weight of old": ("CPUShares=2048", ResourceLimits(cpu_weight=200)),
    "a weight wins over shares": ("CPUShares=2048\nCPUWeight=50", ResourceLimits(cpu_weight=50)),
    "tasks": ("TasksMax=512", ResourceLimits(tasks_max=512)),
    "any number of tasks": ("TasksMax=infinity", ResourceLimits()),
    "an I/O weight": ("IOWeight=50", ResourceLimits(io_weight=50)),
    "the old I/O weight": ("BlockIOWeight=1000", ResourceLimits(io_weight=200)),
    "a bandwidth has the base of 1000": (
        "IOReadBandwidthMax=/dev/sda 5M",
        ResourceLimits(io_read_bytes=(("/dev/sda", 5_000_000),)),
    ),
    "its old name": ("BlockIOWriteBandwidth=/var 1K", ResourceLimits(io_write_bytes=(("/var", 1000),))),
    "one amount a path, the last": (
        "IOReadIOPSMax=/dev/sda 1K\nIOReadIOPSMax=/dev/sdb 7\nIOReadIOPSMax=/dev/sda 2K",
        ResourceLimits(io_read_ops=(("/dev/sda", 2000), ("/dev/sdb", 7))),
    ),
    "infinity takes a device back": (
        "IOWriteIOPSMax=/dev/sda 5\nIOWriteIOPSMax=/dev/sda infinity",
        ResourceLimits(),
    ),
    "an empty list drops all before it": (
        "IOWriteIOPSMax=/dev/sda 5\nIOWriteIOPSMax=\nIOWriteIOPSMax=/dev/sdb 6",
        ResourceLimits(io_write_ops=(("/dev/sdb", 6),)),
    ),
}


@pytest.mark.parametrize(("lines", "expected"), READ.values(), ids=READ)
def test_a_limit_is_read_as_systemd_reads_it(lines: str, expected: ResourceLimits) -> None:
    spec = read(lines)
    assert spec.limits == expected
    assert spec.requirements.drivers == ("systemd", "process")


REFUSED = {
    "a small letter": ("MemoryMax=64m", "'64m' is no size: write 512M or 1.5G"),
    "a size of nothing": ("MemoryMax=0", "at least 1M"),
    "more than all": ("MemoryMax=120%", "write 1% to 100%"),
    "negative": ("MemoryMax=-1", "is no size"),
    "cores": ("CPUQuota=0.5", "'0.5' is no share of a core: write 50%"),
    "no quota": ("CPUQuota=0%", "at least 1% of a core"),
    "weight zero": ("CPUWeight=0", "from 1 to 10000"),
    "too heavy": ("IOWeight=10001", "from 1 to 10000 (weight; 100 is everybody's)"),
    "an old weight too heavy": ("BlockIOWeight=5", "from 10 to 1000"),
    "no tasks": ("TasksMax=0", "number of tasks, or infinity"),
    "no device": ("IOReadBandwidthMax=5M", "write /dev/sda 10M"),
    "a relative path": ("IOReadBandwidthMax=sda 5M", "is no absolute path"),
    "bits": ("IOWriteBandwidthMax=/dev/sda 5Mbit", "write bytes a second, as in 5M"),
    "no amount": ("IOReadIOPSMax=/dev/sda 0", "lets nothing through"),
}


@pytest.mark.parametrize(("lines", "said"), REFUSED.values(), ids=REFUSED)
def test_a_bad_limit_is_refused_with_its_line_and_the_right_form(lines: str, said: str) -> None:
    problem = refusal(lines)
    assert problem.startswith("a.service:3: ")
    assert said in problem


def test_a_limit_of_memory_is_what_the_unit_asks_of_a_machine() -> None:
    assert read("MemoryMax=64M").requirements.memory == 64 * MIB
    assert read("MemoryMax=64M", CONTAINER).requirements.memory == 64 * MIB
    assert read("MemoryMax=64M\n[X-Fleet]\nMemory=32M").requirements.memory == 32 * MIB
    assert asked(Requirements(unit="a.service", drivers=()), ResourceLimits(memory_max_percent=50)).memory == 0


def test_a_quota_of_processor_time_asks_nothing_of_a_machine() -> None:
    assert read("CPUQuota=200%").requirements.cpu == 0


def test_limits_stand_beside_a_container() -> None:
    spec = read("MemoryMax=64M\nMemorySwapMax=0\nCPUQuota=50%\nTasksMax=9", CONTAINER)
    expected = ResourceLimits(memory_max=64 * MIB, memory_swap_max=0, cpu_quota=0.5, tasks_max=9)
    assert (spec.limits, spec.requirements.drivers) == (expected, ("docker",))


BESIDE = {
    "another limit of memory": (
        "MemoryMax=64M",
        "Memory=32m\n",
        "MemoryMax=64M is not what Memory= in [Container]",
    ),
    "a share besides": ("MemoryMax=50%", "Memory=32m\n", "is not what Memory= in [Container]"),
    "another limit of tasks": ("TasksMax=9", "PidsLimit=10\n", "is not what PidsLimit= in [Container] says"),
    "swap alone": ("MemorySwapMax=1G", "", "needs a limit of memory"),
    "less than the Engine takes": ("MemoryMax=4M", "", "too little for a container"),
    "a share of the tasks": ("TasksMax=10%", "", "write a number of tasks"),
    "a share of the swap": ("MemoryMax=64M\nMemorySwapMax=10%", "", "write a size"),
    "idle": ("CPUWeight=idle", "", "write a whole number from 1 to 10000"),
}


@pytest.mark.parametrize(("lines", "inside", "said"), BESIDE.values(), ids=BESIDE)
def test_what_a_container_can_not_have_is_refused(lines: str, inside: str, said: str) -> None:
    with pytest.raises(InvalidUnit) as caught:
        accept.read("a.service", f"{CONTAINER}{inside}[Service]\n{lines}\n")
    (problem,) = caught.value.problems
    assert said in problem


def test_the_same_limit_in_both_places_is_fine() -> None:
    spec = accept.read("a.service", f"{CONTAINER}Memory=64m\nPidsLimit=9\n[Service]\nMemoryMax=64M\nTasksMax=9\n")
    assert spec.requirements.memory == 64 * MIB


@pytest.mark.parametrize("line", ["TasksMax=10%", "MemorySwapMax=10%", "CPUWeight=idle", "MemoryHigh=1G"])
def test_a_value_that_only_systemd_keeps_needs_its_driver(line: str) -> None:
    spec = read(line)
    assert spec.requirements.drivers == ("systemd",)
    assert spec.limits == ResourceLimits()
    assert "needs the systemd driver" in spec.warnings[0]


def test_a_share_of_memory_is_of_the_machine_that_runs_the_unit() -> None:
    assert on_machine(ResourceLimits(memory_max_percent=25), 4 * GIB) == ResourceLimits(memory_max=GIB)
    assert on_machine(ResourceLimits(memory_max=5), 4 * GIB) == ResourceLimits(memory_max=5)


def test_weights_become_those_of_v1_by_systemds_rules() -> None:
    assert [cpu_shares(weight) for weight in (1, 100, 10000)] == [10, 1024, 102400]
    assert [blkio_weight(weight) for weight in (1, 100, 10000)] == [10, 500, 1000]
