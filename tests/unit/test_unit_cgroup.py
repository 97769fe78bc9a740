"""Control groups of process units: what is written to which file, and where the groups go, on v1 and v2 trees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from unit_agent.drivers.cgroup_settings import Setting, plan, refusal
from unit_agent.drivers.docker_limits import asked_of_kernel, left_out, resource_config
from unit_agent.drivers.unit_cgroup import Cgroups, UnitCgroup
from unit_agent.supervisor.group import Group
from unitfleet.spec import ContainerSpec, ResourceLimits

MIB = 1 << 20
MACHINE = "0123456789abcdef0123"
OURS = "unitfleet-0123456789ab"
UNIT = "web@1.service"
ENCODED = "web_401.service"
EVERYTHING = ResourceLimits(
    memory_max=64 * MIB,
    memory_swap_max=MIB,
    cpu_quota=1.5,
    cpu_weight=200,
    tasks_max=9,
    io_weight=1000,
    io_read_bytes=(("/dev/sda", 5_000_000),),
    io_write_bytes=(("/dev/sda", 1_000_000),),
    io_read_ops=(("/dev/sda", 50),),
    io_write_ops=(("/dev/sda", 10),),
)
SDA = {"/dev/sda": "8:0"}


def written(
    limits: ResourceLimits, unified: tuple[str, ...] = (), lacks: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    settings, _ = plan(limits, lambda controller, file: file not in lacks, SDA, unified)
    found: dict[str, list[str]] = {}
    for setting in settings:
        found.setdefault(setting.file, []).append(setting.text)
    return found


def test_every_limit_has_its_file_on_v1() -> None:
    assert written(EVERYTHING, lacks=("blkio.weight",)) == {
        "memory.limit_in_bytes": [str(64 * MIB)],
        "memory.memsw.limit_in_bytes": [str(65 * MIB)],
        "cpu.cfs_period_us": ["100000"],
        "cpu.cfs_quota_us": ["150000"],
        "cpu.shares": ["2048"],
        "pids.max": ["9"],
        "blkio.bfq.weight": ["181"],
        "blkio.throttle.read_bps_device": ["8:0 5000000"],
        "blkio.throttle.write_bps_device": ["8:0 1000000"],
        "blkio.throttle.read_iops_device": ["8:0 50"],
        "blkio.throttle.write_iops_device": ["8:0 10"],
    }


def test_every_limit_has_its_file_on_v2() -> None:
    assert written(EVERYTHING, ("memory", "cpu", "pids", "io")) == {
        "memory.max": [str(64 * MIB)],
        "memory.swap.max": [str(MIB)],
        "cpu.max": ["150000 100000"],
        "cpu.weight": ["200"],
        "pids.max": ["9"],
        "io.weight": ["default 1000"],
        "io.max": ["8:0 rbps=5000000", "8:0 wbps=1000000", "8:0 riops=50", "8:0 wiops=10"],
    }


def test_a_host_with_both_versions_has_each_limit_where_its_controller_is() -> None:
    found = written(EVERYTHING, ("io",))
    assert {"memory.limit_in_bytes", "cpu.shares", "io.max", "io.weight"} <= found.keys()


def test_the_bound_of_memory_is_set_before_that_of_memory_and_swap() -> None:
    settings, _ = plan(EVERYTHING, lambda controller, file: True, SDA, ())
    files = [setting.file for setting in settings]
    assert files.index("memory.limit_in_bytes") < files.index("memory.memsw.limit_in_bytes")


def test_what_the_kernel_lacks_is_said_by_its_key() -> None:
    lacking = ("blkio.weight", "blkio.bfq.weight", "memory.memsw.limit_in_bytes")
    settings, notes = plan(EVERYTHING, lambda controller, file: file not in lacking, SDA, ())
    assert Setting("memory", "memory.limit_in_bytes", str(64 * MIB)) in settings
    assert [note.partition("=")[0] for note in notes] == ["MemorySwapMax", "IOWeight"]
    _, notes = plan(ResourceLimits(memory_swap_max=0), lambda controller, file: True, SDA, ())
    assert "without MemoryMax=" in notes[0]


def test_a_refusal_names_what_can_not_be_limited_and_why() -> None:
    limits = ResourceLimits(cpu_quota=1.0)
    assert refusal(UNIT, ResourceLimits(), ()) == ""
    assert refusal(UNIT, limits, ("cpu",)) == ""
    said = refusal(UNIT, limits, ())
    assert said == f"cannot limit the processor time of {UNIT}: this agent may not make cgroups (run it as root)"
    assert refusal(UNIT, limits, ("memory",)).endswith("this host has no cgroup controller 'cpu'")


# Where groups go: trees in the place of the kernel's.


class Tree:
    """A /proc and mounted hierarchies in a directory; a group that is made gets the kernel's files."""

    _V1_FILES: ClassVar = {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"),
        "pids": ("pids.max",),
    }
    _V2_FILES: ClassVar = {
        "memory": ("memory.max",),
        "cpu": ("cpu.max", "cpu.weight"),
        "pids": ("pids.max",),
        "io": ("io.max",),
    }

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.proc = directory / "proc"
        (self.proc / "self").mkdir(parents=True)
        self._mounts: list[str] = []
        self._own: list[str] = []
        self._v1: dict[Path, tuple[str, ...]] = {}
        self._v2: Path | None = None

    def v1(self, controllers: str, own: str, root: str = "/") -> Path:
        """Mount a hierarchy of v1, this process in the group `own` of it."""
        mount = self.directory / "fs" / controllers
        self._mount(mount, own, root)
        self._mounts.append(f"30 20 0:30 {root} {mount} rw - cgroup cgroup rw,{controllers}")
        self._own.append(f"4:{controllers}:{own}")
        self._v1[mount] = tuple(controllers.split(","))
        self._write()
        return mount

    def v2(self, controllers: str, own: str, root: str = "/") -> Path:
        mount = self.directory / "fs" / "unified"
        self._mount(mount, own, root)
        self._mounts.append(f"31 20 0:31 {root} {mount} rw - cgroup2 cgroup2 rw")
        self._own.append(f"0::{own}")
        self._v2 = mount
        for group in (mount, *(path for path in mount.rglob("*") if path.is_dir())):
            (group / "cgroup.controllers").write_text(controllers)
            (group / "cgroup.subtree_control").write_text("")
        self._write()
        return mount

    def _mount(self, mount: Path, own: str, root: str) -> None:
        inside = own.removeprefix(root.rstrip("/")).strip("/")
        (mount / inside).mkdir(parents=True)

    def _write(self) -> None:
        (self.proc / "self/mountinfo").write_text("\n".join(self._mounts) + "\n")
        (self.proc / "self/cgroup").write_text("\n".join(self._own) + "\n")

    def mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        for mount, controllers in self._v1.items():
            if path.is_relative_to(mount):
                for file in (file for name in controllers for file in self._V1_FILES.get(name, ())):
                    (path / file).touch()
        if self._v2 is not None and path.is_relative_to(self._v2):
            enabled = (path.parent / "cgroup.subtree_control").read_text()
            (path / "cgroup.controllers").write_text(enabled.replace("+", ""))
            (path / "cgroup.subtree_control").write_text("")
            for file in (
                file for name, files in self._V2_FILES.items() if f"+{name}" in enabled for file in files
            ):
                (path / file).touch()

    def cgroups(self) -> Cgroups:
        return Cgroups(MACHINE, 1 << 30, proc=self.proc, mkdir=self.mkdir)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_groups_go_next_to_the_agents_own_and_not_into_it(tree: Tree) -> None:
    memory = tree.v1("memory", "/system.slice/unit-agent.service")
    cpu = tree.v1("cpu,cpuacct", "/")
    made = tree.cgroups().make(UNIT, ResourceLimits(memory_max=64 * MIB, cpu_quota=0.5))
    assert made.path("memory") == memory / "system.slice" / OURS / ENCODED
    assert made.path("cpu") == made.path("cpuacct") == cpu / OURS / ENCODED
    assert made.path("pids") is None
    assert (memory / "system.slice" / OURS / ENCODED / "memory.limit_in_bytes").read_text() == str(64 * MIB)
    assert (cpu / OURS / "supervisors").is_dir()
    assert set(made.needed) == {"memory", "cpu"}


def test_an_agent_in_a_container_makes_its_groups_where_it_sees_the_top(tree: Tree) -> None:
    memory = tree.v1("memory", "/docker/abc", root="/docker/abc")
    assert tree.cgroups().make(UNIT, ResourceLimits()).path("memory") == memory / OURS / ENCODED


def test_a_host_of_a_lab_keeps_its_groups(tree: Tree) -> None:
    pids = tree.v1("pids", "/uflab1-0/run")
    assert tree.cgroups().make(UNIT, ResourceLimits()).path("pids") == pids / "uflab1-0" / OURS / ENCODED


def test_controllers_of_v2_are_enabled_on_the_way_down(tree: Tree) -> None:
    top = tree.v2("cpu io memory pids", "/system.slice/unit-agent.service")
    made = tree.cgroups().make(UNIT, ResourceLimits(memory_max=64 * MIB, tasks_max=9, cpu_weight=200))
    group = top / "system.slice" / OURS / ENCODED
    assert {made.path(name) for name in ("memory", "cpu", "pids", "io", "unified")} == {group}
    assert (group / "memory.max").read_text() == str(64 * MIB)
    assert (group / "pids.max").read_text() == "9"
    assert (group / "cpu.weight").read_text() == "200"
    assert made.directories == (group,)


def test_a_hybrid_host_has_limits_on_v1_and_the_group_of_v2_besides(tree: Tree) -> None:
    memory, top = tree.v1("memory", "/"), tree.v2("hugetlb", "/")
    made = tree.cgroups().make(UNIT, ResourceLimits(memory_max=64 * MIB))
    assert made.path("memory") == memory / OURS / ENCODED
    assert made.path("unified") == top / OURS / ENCODED


def test_a_hierarchy_of_v2_that_is_listed_and_not_to_be_seen_keeps_no_unit_from_its_other_groups(
    tree: Tree,
) -> None:
    memory = tree.v1("memory", "/")
    shutil.rmtree(tree.v2("", "/"))
    made = tree.cgroups().make(UNIT, ResourceLimits(memory_max=64 * MIB))
    assert made.directories == (memory / OURS / ENCODED,)


def test_a_unit_that_v2_has_no_controller_for_is_refused(tree: Tree) -> None:
    tree.v2("hugetlb", "/")
    limits = ResourceLimits(memory_max=64 * MIB)
    assert "may not make cgroups" in tree.cgroups().refusal(UNIT, limits)
    tree.v1("cpu", "/")
    assert "no cgroup controller 'memory'" in tree.cgroups().refusal(UNIT, limits)
    tree.v1("memory", "/")
    assert tree.cgroups().refusal(UNIT, limits) == ""


def test_a_share_of_memory_is_that_of_the_machine(tree: Tree) -> None:
    memory = tree.v1("memory", "/")
    made = tree.cgroups().make(UNIT, ResourceLimits(memory_max_percent=25))
    assert (memory / OURS / ENCODED / "memory.limit_in_bytes").read_text() == str((1 << 30) // 4)
    assert made.memory_max == (1 << 30) // 4


def test_what_was_made_is_found_again_by_the_next_agent_and_the_supervisor(tree: Tree, tmp_path: Path) -> None:
    memory = tree.v1("memory", "/")
    made = tree.cgroups().make(UNIT, ResourceLimits(memory_max=64 * MIB))
    made.write(tmp_path)
    assert UnitCgroup.read(tmp_path).groups == made.groups
    assert UnitCgroup.read(tmp_path / "none") == UnitCgroup()
    group, counts = Group(str(tmp_path)), memory / OURS / ENCODED / "memory.oom_control"
    counts.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (memory / OURS / ENCODED / "memory.max_usage_in_bytes").write_text("5")
    group.begin()
    counts.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (memory / OURS / ENCODED / "memory.max_usage_in_bytes").write_text(str(64 * MIB))
    evidence = group.evidence()
    assert (evidence.oom_kills, evidence.memory_peak, evidence.memory_limit) == (1, 64 * MIB, 64 * MIB)


def test_counts_are_read_on_v2_too(tree: Tree, tmp_path: Path) -> None:
    top = tree.v2("cpu io memory pids", "/")
    tree.cgroups().make(UNIT, ResourceLimits(tasks_max=9)).write(tmp_path)
    here, group = top / OURS / ENCODED, Group(str(tmp_path))
    (here / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n")
    (here / "pids.events").write_text("max 4\n")
    (here / "memory.peak").write_text(str(3 * MIB))
    evidence = group.evidence()
    assert (evidence.oom_kills, evidence.forks_refused, evidence.memory_peak) == (1, 4, 3 * MIB)
    assert evidence.tasks_max == 9


def test_a_command_enters_every_group_and_fails_only_where_a_limit_would_not_hold(
    tree: Tree, tmp_path: Path
) -> None:
    memory, _ = tree.v1("memory", "/"), tree.v1("cpu", "/")
    tree.cgroups().make(UNIT, ResourceLimits(memory_max=64 * MIB)).write(tmp_path)
    said = json.loads((tmp_path / "cgroup.json").read_text())
    Path(said["groups"]["cpu"]).joinpath("cgroup.procs").mkdir()  # can't be written
    Group(str(tmp_path)).enter()
    assert (memory / OURS / ENCODED / "cgroup.procs").read_text() == "0"
    said["needed"] = ["cpu"]
    (tmp_path / "cgroup.json").write_text(json.dumps(said))
    with pytest.raises(OSError, match=ENCODED):
        Group(str(tmp_path)).enter()


# The Engine's words.


def test_every_limit_has_its_field_in_the_engines_words() -> None:
    assert resource_config(ContainerSpec(image="a"), EVERYTHING, lambda path: f"/dev/of{path}") == {
        "Memory": 64 * MIB,
        "MemorySwap": 65 * MIB,
        "CpuPeriod": 100_000,
        "CpuQuota": 150_000,
        "CpuShares": 2048,
        "PidsLimit": 9,
        "BlkioWeight": 1000,
        "BlkioDeviceReadBps": [{"Path": "/dev/of/dev/sda", "Rate": 5_000_000}],
        "BlkioDeviceWriteBps": [{"Path": "/dev/of/dev/sda", "Rate": 1_000_000}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/of/dev/sda", "Rate": 50}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/of/dev/sda", "Rate": 10}],
    }


def test_what_the_container_section_says_is_no_matter_of_the_limits() -> None:
    container = ContainerSpec(image="a", memory=32 * MIB, pids_limit=7)
    assert resource_config(container, ResourceLimits()) == {"Memory": 32 * MIB, "PidsLimit": 7}
    swapless = resource_config(container, ResourceLimits(memory_swap_max=0))
    assert swapless["MemorySwap"] == swapless["Memory"]
    assert resource_config(container, ResourceLimits(memory_swap_max=-1))["MemorySwap"] == -1


def test_what_an_engine_left_out_is_known_by_what_the_container_has() -> None:
    limits = ResourceLimits(memory_max=64 * MIB, io_weight=50, memory_swap_max=MIB)
    asked = asked_of_kernel(ContainerSpec(image="a"), limits)
    assert left_out(asked, {"Memory": 64 * MIB, "MemorySwap": 65 * MIB, "BlkioWeight": 250}) == ()
    assert left_out(asked, {"Memory": 64 * MIB, "MemorySwap": -1, "BlkioWeight": 0}) == (
        "MemorySwapMax",
        "IOWeight",
    )
    assert asked_of_kernel(ContainerSpec(image="a"), ResourceLimits(memory_max_percent=5)) == ("Memory",)
    assert asked_of_kernel(ContainerSpec(image="a"), ResourceLimits()) == ()
