"""Figures of copies from counters: rates, what restarts begin anew, process trees, networks, OOM kills."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.cgroup_trees import ID, MIB, v1_host, write
from unit_agent.cgroups.choose import reader
from unit_agent.driver import Copy
from unit_agent.resources import network, processes
from unit_agent.resources.copies import SELDOM_S, CopyMeter
from unit_agent.resources.kills import OomKills
from unitfleet.api import UnitFigures
from unitfleet.model import Cause, CopyPhase

BOX = "box@1.service"
HEADER = "Inter-| Receive | Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n"


def net_dev(received: int, sent: int) -> str:
    return (
        HEADER
        + "    lo: 99 1 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n"
        + f"  eth0:{received} 10 0 3 0 0 0 0 {sent} 20 0 4 0 0 0 0\n"
    )


def stat(pid: int, parent: int, *, ticks: int = 0, reaped: int = 0, pages: int = 0, state: str = "S") -> str:
    return (
        f"{pid} (a (b) c) {state} {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 {reaped} 0 20 0 1 0 500 1000 {pages} 1 1\n"
    )


def a_copy(**changes: object) -> Copy:
    usual: dict[str, object] = {
        "unit": BOX,
        "driver": "docker",
        "id": ID,
        "spec": "s",
        "incarnation": "i",
        "epoch": 1,
        "restart": 0,
        "phase": CopyPhase.RUNNING,
        "pid": 42,
        "image": "sha256:x",
        "since": 7.0,
        "restarts": 3,
    }
    return Copy(**{**usual, **changes})  # type: ignore[arg-type]


@dataclass
class Host:
    """A v1 host in a directory, its clock, and a meter on it."""

    root: Path
    proc: Path
    time: float = 100.0
    made: list[CopyMeter] = field(default_factory=list)

    def sample(self, *copies: Copy, oom_kills: dict[str, int] | None = None) -> UnitFigures:
        if not self.made:
            self.made.append(
                CopyMeter(reader(self.proc), proc=self.proc, clock=lambda: self.time, now=lambda: self.time + 1e6)
            )
        [found] = self.made[0].sample(copies, oom_kills or {})
        return found

    def group(self, name: str, text: str) -> None:
        controller, _, file = name.partition("/")
        write(self.root / "cg" / controller / "docker" / ID, {file: text})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    proc = v1_host(tmp_path)
    write(proc, {"42/net/dev": net_dev(1000, 5000), "42/stat": stat(42, 1)})
    write(
        proc, {"42/limits": "Limit  Soft Hard Units\nMax open files            1024                 4096  files\n"}
    )
    for name in ("self/ns/net", "42/ns/net", "42/fd/0", "42/fd/1", "42/fd/2", "77/fd/0"):
        write(proc, {name: name})
    write(tmp_path / "cg/memory/docker" / ID, {"cgroup.procs": "42\n77\n"})
    return Host(tmp_path, proc)


def test_the_first_sample_tells_totals_and_no_rates(host: Host) -> None:
    first = host.sample(a_copy())
    assert (first.cpu, first.cpu_s, first.throttled_s) == (0.0, 12.5, 3.5)
    assert (first.memory, first.memory_usage, first.memory_limit) == (64 * MIB, 96 * MIB, 128 * MIB)
    assert (first.egress, first.ingress, first.sent_bytes, first.received_bytes) == (0, 0, 5000, 1000)
    assert (first.sent_dropped, first.received_dropped) == (4, 3)
    assert (first.open_files, first.open_files_limit) == (3, 1024)
    assert (first.id, first.cgroup, first.image) == (ID, f"/docker/{ID}", "sha256:x")
    assert (first.started_at, first.restarts, first.at) == (7.0, 3, 1e6 + 100)


def test_rates_are_of_the_time_since_the_sample_before(host: Host) -> None:
    host.sample(a_copy())
    host.time += 4
    host.group("cpu/cpuacct.usage", "14500000000\n")
    write(host.proc, {"42/net/dev": net_dev(received=2000, sent=505_000)})
    second = host.sample(a_copy())
    assert (second.cpu, second.egress, second.ingress) == (0.5, 1_000_000, 2000)


def test_a_copy_that_was_started_again_has_no_rate_of_the_old_process(host: Host) -> None:
    host.sample(a_copy())
    host.time += 4
    host.group("cpu/cpuacct.usage", "1000000000\n")
    write(host.proc, {"43/cgroup": (host.proc / "42/cgroup").read_text(), "43/net/dev": net_dev(0, 0)})
    write(host.proc, {"43/ns/net": "", "43/stat": stat(43, 1)})
    again = host.sample(a_copy(pid=43))
    assert (again.cpu, again.cpu_s, again.egress, again.sent_bytes) == (0.0, 1.0, 0, 0)


def test_a_copy_in_the_hosts_network_has_no_network_figures(host: Host) -> None:
    (host.proc / "42/ns/net").unlink()
    (host.proc / "42/ns/net").hardlink_to(host.proc / "self/ns/net")
    shown = host.sample(a_copy())
    assert (shown.egress, shown.ingress, shown.sent_bytes, shown.received_bytes) == (-1, -1, -1, -1)


def test_limits_and_open_files_are_looked_at_seldom(host: Host) -> None:
    host.sample(a_copy())
    write(host.proc, {"42/fd/3": ""})
    host.group("memory/memory.limit_in_bytes", f"{256 * MIB}\n")
    host.time += SELDOM_S - 1
    soon = host.sample(a_copy())
    assert (soon.open_files, soon.memory_limit) == (3, 128 * MIB)
    host.time += 1
    later = host.sample(a_copy())
    assert (later.open_files, later.memory_limit) == (4, 256 * MIB)


def test_what_does_not_run_has_no_figures(host: Host) -> None:
    meter = CopyMeter(reader(host.proc), proc=host.proc)
    assert meter.sample([a_copy(pid=0), a_copy(phase=CopyPhase.FAILED)], {}) == ()


def test_a_unit_without_a_group_of_its_own_is_the_sum_of_what_lives_below_its_supervisor(host: Host) -> None:
    tick, page = processes.TICK_S, processes.PAGE
    supervisor = "/usr/bin/python3\0/opt/unit_agent/supervisor/start.py\0/var/lib/x\0"
    files = {
        "50/cmdline": supervisor,
        "50/stat": stat(50, 1, ticks=900, reaped=100, pages=5000),
        "51/stat": stat(51, 50, ticks=20, reaped=7, pages=10),
        "52/stat": stat(52, 51, ticks=30, pages=5),
        "53/stat": stat(53, 50, ticks=1, pages=2),  # an orphan, which the supervisor got
        "54/stat": stat(54, 50, ticks=1, pages=2, state="Z"),
        "51/cgroup": "4:memory:/agent\n3:cpu,cpuacct:/agent\n0::/\n",
        "51/io": "rchar: 9\nread_bytes: 4096\nwrite_bytes: 100\ncancelled_write_bytes: 0\n",
        "52/io": "rchar: 9\nread_bytes: 0\nwrite_bytes: 900\n",
    }
    write(host.proc, files)
    unit = a_copy(driver="process", id="box_401.service", pid=51)
    first = host.sample(unit)
    assert first.cpu_s == pytest.approx((100 + 20 + 7 + 30 + 1) * tick)
    assert (first.memory, first.memory_usage) == (17 * page, 17 * page)
    assert (first.processes, first.read_bytes, first.write_bytes) == (3, 4096, 1000)
    assert (first.cgroup, first.throttled_s, first.oom_kills) == ("", -1, 0)
    # one ends: its time is in its parent's account now, its bytes are remembered
    (host.proc / "52/stat").unlink()
    write(host.proc, {"51/stat": stat(51, 50, ticks=20, reaped=37, pages=10)})
    host.time += 2
    second = host.sample(unit)
    assert (second.cpu_s, second.cpu) == (first.cpu_s, 0.0)
    assert (second.processes, second.write_bytes) == (2, 1000)


def test_a_process_with_a_strange_name_is_read_right(tmp_path: Path) -> None:
    write(tmp_path, {"7/stat": stat(7, 3, ticks=200, pages=4)})
    seen = processes.look(7, tmp_path)
    assert seen is not None and (seen.parent, seen.resident) == (3, 4 * processes.PAGE)
    assert seen.cpu_s == pytest.approx(200 * processes.TICK_S)


# ---------------------------------------------------------------------- OOM kills


def oom(total: int) -> UnitFigures:
    return UnitFigures(unit=BOX, at=0.0, driver="docker", oom_kills=total)


def test_a_kill_that_ended_the_copy_counts_although_its_group_was_never_seen_with_it() -> None:
    kills = OomKills()
    kills.note(BOX, a_copy(), a_copy(pid=0, phase=CopyPhase.RESTARTING, cause=Cause.OOM))
    assert kills.ended() == {BOX: 1}
    kills.note(BOX, a_copy(pid=0), a_copy(pid=44, cause=Cause.OOM))  # it runs again: no other end
    assert kills.ended() == {BOX: 1}


def test_a_kill_that_was_seen_in_the_group_before_it_went_counts_once() -> None:
    kills = OomKills()
    kills.saw([oom(1)])
    kills.note(BOX, a_copy(), a_copy(pid=0, cause=Cause.OOM))
    assert kills.ended() == {BOX: 1}


def test_kills_of_children_are_remembered_over_a_restart() -> None:
    kills = OomKills()
    kills.saw([oom(5)])
    kills.note(BOX, a_copy(), a_copy(pid=0, cause=Cause.EXIT))
    assert kills.ended() == {BOX: 5}


def test_another_copy_begins_without_kills() -> None:
    kills = OomKills()
    kills.note(BOX, a_copy(), a_copy(pid=0, cause=Cause.OOM))
    kills.note(BOX, a_copy(pid=45), a_copy(id="another", pid=46))
    assert kills.ended() == {}


def test_units_that_are_gone_are_forgotten() -> None:
    kills = OomKills()
    kills.note(BOX, a_copy(), a_copy(pid=0, cause=Cause.OOM))
    kills.keep(["other.service"])
    assert kills.ended() == {}


# ---------------------------------------------------------------------- networks


ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def route(name: str, metric: int, *, to: str = "00000000", mask: str = "00000000", flags: str = "0003") -> str:
    return f"{name}\t{to}\t010200C0\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        (route("eth0", 100) + route("wlan0", 600), "eth0"),
        (route("wlan0", 600) + route("eth0", 100), "eth0"),
        (route("lo", 0, flags="0200") + route("eth1", 5), "eth1"),
        (route("eth0", 0, to="000200C0", mask="00FFFFFF"), ""),
        ("", ""),
    ],
    ids=["the lower metric", "in any order", "not one that rejects", "not one to a network", "none"],
)
def test_the_uplink_is_the_interface_of_the_default_route(tmp_path: Path, routes: str, found: str) -> None:
    write(tmp_path, {"self/net/route": ROUTES + routes})
    assert network.uplink("192.0.2.77", tmp_path) == found


def test_a_host_of_ipv6_alone_has_an_uplink_too(tmp_path: Path) -> None:
    zero = "0" * 32
    lines = f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
    lines += f"{zero} 00 {zero} 00 fe80{zero[4:]} 00000400 00000001 00000000 00000003     ens5\n"
    write(tmp_path, {"self/net/route": ROUTES, "self/net/ipv6_route": lines})
    assert network.uplink("", tmp_path) == "ens5"


def test_loopback_is_no_uplink(tmp_path: Path) -> None:
    assert network.uplink("127.0.0.1", tmp_path) == ""
