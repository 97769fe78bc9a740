"""Figures of control groups, v1 and v2, read from trees made for the test: a kernel has one of them alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cgroup_trees import ID, MIB, V1, v1_host, v2_host, write
from unit_agent.cgroups import files
from unit_agent.cgroups.choose import reader
from unit_agent.cgroups.places import hierarchies, own_path
from unit_agent.cgroups.reader import CgroupReader, Group, GroupFigures, GroupLimits

COUNTED = GroupFigures(
    cpu_s=12.5,
    throttled_s=3.5,
    memory=64 * MIB,
    memory_usage=96 * MIB,
    oom_kills=2,
    processes=5,
    read_bytes=1001,
    write_bytes=2002,
)
PRESSED = {"cpu": 1.25, "memory": 0.5, "io": 0.0}


def direct(proc: Path) -> CgroupReader:
    made = reader(proc)
    assert made is not None
    return made


def by_cgroupspy(proc: Path) -> CgroupReader:
    made = reader(proc, cgroupspy=True)
    assert made is not None and made.name == "cgroupspy"
    return made


def the_group(made: CgroupReader) -> Group:
    group = made.find(42, ID)
    assert group is not None
    return group


@pytest.mark.parametrize("of", [direct, by_cgroupspy])
def test_v1_tells_what_a_container_uses_and_may_use(tmp_path: Path, of: Callable[[Path], CgroupReader]) -> None:
    made = of(v1_host(tmp_path))
    group = the_group(made)
    assert group.path == f"/docker/{ID}"
    assert made.figures(group) == COUNTED
    assert made.limits(group) == GroupLimits(cpu=0.5, memory=128 * MIB)


def test_v2_tells_the_same_and_the_pressure(tmp_path: Path) -> None:
    made = direct(v2_host(tmp_path))
    group = the_group(made)
    assert (made.name, group.path) == ("v2", f"/system.slice/docker-{ID}.scope")
    counted = made.figures(group)
    assert counted.pressure == PRESSED
    assert made.limits(group) == GroupLimits(cpu=0.5, memory=128 * MIB)
    assert (counted.cpu_s, counted.throttled_s) == (COUNTED.cpu_s, COUNTED.throttled_s)
    assert (counted.memory, counted.memory_usage) == (COUNTED.memory, COUNTED.memory_usage)
    assert (counted.oom_kills, counted.processes) == (COUNTED.oom_kills, COUNTED.processes)
    assert (counted.read_bytes, counted.write_bytes) == (COUNTED.read_bytes, COUNTED.write_bytes)


@pytest.mark.parametrize("of", [direct, by_cgroupspy])
def test_no_limit_is_a_limit_of_0(tmp_path: Path, of: Callable[[Path], CgroupReader]) -> None:
    unlimited = {"cpu/cpu.cfs_quota_us": "-1\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}
    made = of(v1_host(tmp_path, files={**V1, **unlimited}))
    assert made.limits(the_group(made)) == GroupLimits(cpu=0.0, memory=0)


def test_no_limit_is_a_limit_of_0_on_v2(tmp_path: Path) -> None:
    made = direct(v2_host(tmp_path))
    group = the_group(made)
    write(Path(group.directories["unified"]), {"cpu.max": "max 100000\n", "memory.max": "max\n"})
    assert made.limits(group) == GroupLimits(cpu=0.0, memory=0)


@pytest.mark.parametrize("host", [v1_host, v2_host])
@pytest.mark.parametrize("of", [direct, lambda proc: reader(proc, cgroupspy=True)])
def test_a_group_that_went_away_is_unknown_and_no_exception(
    tmp_path: Path, of: Callable[[Path], CgroupReader], host: Callable[[Path], Path]
) -> None:
    made = of(host(tmp_path))
    group = the_group(made)
    for directory in group.directories.values():
        shutil.rmtree(directory, ignore_errors=True)
    assert made.figures(group) == GroupFigures()
    assert made.limits(group) == GroupLimits()


@pytest.mark.parametrize("host", [v1_host, v2_host])
@pytest.mark.parametrize("of", [direct, lambda proc: reader(proc, cgroupspy=True)])
def test_files_full_of_nonsense_are_no_exception(
    tmp_path: Path, of: Callable[[Path], CgroupReader], host: Callable[[Path], Path]
) -> None:
    made = of(host(tmp_path))
    group = the_group(made)
    for directory in group.directories.values():
        for name in os.listdir(directory):
            (Path(directory) / name).write_text("nonsense \xff 1 2\n\nx=\n")
    assert made.figures(group).cpu_s == -1
    assert made.limits(group) == GroupLimits()


def test_a_kernel_without_an_oom_count_leaves_it_unknown(tmp_path: Path) -> None:
    old = {**V1, "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}
    made = direct(v1_host(tmp_path, files=old))
    assert made.figures(the_group(made)).oom_kills == -1


def test_a_process_that_is_gone_has_no_group(tmp_path: Path) -> None:
    assert direct(v1_host(tmp_path)).find(43, ID) is None


def test_a_group_that_is_not_named_for_the_copy_is_not_its_own(tmp_path: Path) -> None:
    made = direct(v1_host(tmp_path, group="user.slice/session-1.scope"))
    assert made.find(42, "a.service") is None


def test_the_agents_own_group_is_no_units(tmp_path: Path) -> None:
    made = direct(v1_host(tmp_path, group="agent"))
    group = made.find(42, "agent")
    assert group is not None and sorted(group.directories) == ["blkio", "pids"]  # there the agent is elsewhere


@pytest.mark.parametrize(
    ("path", "mark", "own"),
    [
        ("/docker/abc", "abc", "/docker/abc"),
        ("/docker/abc/init.scope", "abc", "/docker/abc"),
        ("/system.slice/docker-abc.scope", "abc", "/system.slice/docker-abc.scope"),
        ("/unitfleet-0123/a.service", "a.service", "/unitfleet-0123/a.service"),
        ("/system.slice/unit-a.service", "a.service", ""),
        ("/docker/abcd", "abc", ""),
        ("/", "abc", ""),
        ("/docker/abc", "", ""),
    ],
)
def test_the_copys_own_group_is_the_one_named_for_it(path: str, mark: str, own: str) -> None:
    assert own_path(path, mark) == own


def test_a_hybrid_host_is_read_as_v1_and_one_of_v2_as_v2(tmp_path: Path) -> None:
    assert direct(v1_host(tmp_path / "1")).name == "v1"
    assert direct(v2_host(tmp_path / "2")).name == "v2"


def test_v2_is_read_directly_although_cgroupspy_is_asked_for(tmp_path: Path) -> None:
    made = reader(v2_host(tmp_path), cgroupspy=True)
    assert made is not None and made.name == "v2"


def test_a_host_without_groups_has_no_reader(tmp_path: Path) -> None:
    write(tmp_path, {"self/mountinfo": "22 1 0:20 / /proc rw - proc proc rw\n"})
    assert reader(tmp_path) is None


def test_a_part_of_a_hierarchy_that_is_mounted_is_found_by_its_root(tmp_path: Path) -> None:
    line = "30 25 0:26 /docker/outer /sys/fs/cgroup/memory\\040x rw - cgroup cgroup rw,memory\n"
    write(tmp_path, {"self/mountinfo": line})
    memory = hierarchies(tmp_path)["memory"]
    assert memory.directory("/docker/outer/inner") == "/sys/fs/cgroup/memory x/inner"
    assert memory.directory("/docker/outer") == "/sys/fs/cgroup/memory x"


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"a 1\nab 2\nb 3\n", 3), (b"b 3", 3), (b"ab 2\n", -1), (b"b x\n", -1), (b"", -1), (b"x 1\nb 5", 5)],
)
def test_an_entry_is_found_by_its_whole_key(text: bytes, value: int) -> None:
    assert files.entry(text, b"b") == value
