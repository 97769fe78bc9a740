"""Limits and guarantees, measured with iperf3 between network namespaces. The machine is shared: wide bounds."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import hierarchies
from harness.net_rig import Flow, NetRig, own_group, wait_for
from unit_agent.shaping.rules import ours, pull_rule, rule_lines, script
from unit_agent.shaping.shape import Group

V1 = "net_cls" in Path("/proc/cgroups").read_text()

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(NetRig.available() is not None, reason=str(NetRig.available())),
]

M = 10**6
AD, WEB = "adserver@1.service", "web.service"
OUT = "unitfleet-out"
LISTEN = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(99); sys.stdin.read()"
)


@pytest.fixture
def rig() -> Iterator[NetRig]:
    with NetRig() as made:
        yield made


def entering(group: Path) -> tuple[str, ...]:
    """Return what puts a command into a control group."""
    return ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")


def within(goodput: float, limit: float) -> bool:
    """Tell whether TCP got what a limit leaves it: headers cost it five in a hundred."""
    return 0.85 <= goodput / limit <= 1.05


def test_limits_hold_both_ways_for_ipv4_and_ipv6_and_go_without_a_trace() -> None:
    limits = (10 * M, 100 * M, 20 * M)
    with NetRig(containers=3) as rig:
        before = rig.everything()
        shaper = rig.shaper(egress=1000 * M, ingress=1000 * M)
        units = tuple(
            (f"u{limit // M}.service", inside.pid, {"egress_limit": limit, "ingress_limit": limit})
            for limit, inside in zip(limits, rig.containers, strict=True)
        )
        assert shaper.round(*units)["failed"] == []
        for flow in (rig.out, rig.into):
            flows = [flow(0), flow(1), dataclasses.replace(flow(2), address="fd77:2::2")]
            passed = rig.goodput(flows)
            assert all(map(within, passed, limits)), passed
        answer = shaper.round(*units)
        assert answer["done"] == []
        for told, limit in zip(answer["net"]["units"], (10 * M, 100 * M, 20 * M), strict=True):
            assert (told["how"], told["in_force"], told["egress_limit"]) == ("veth+ifb", True, limit)
            # two seconds of it, in bytes
            assert told["sent_bytes"] > limit / 8 and told["received_bytes"] > limit / 8
        shaper.round((WEB, rig.containers[1].pid, {}))
        assert rig.everything() == before


def test_a_guarantee_is_kept_while_a_neighbour_floods_and_what_is_spare_is_lent(rig: NetRig) -> None:
    shaper = rig.shaper(egress=100 * M, ingress=100 * M)
    wanted = {"egress": 50 * M, "ingress": 50 * M}
    shaper.round((AD, rig.containers[0].pid, wanted), (WEB, rig.containers[1].pid, {}))
    for flow in (rig.out, rig.into):
        kept, flood = rig.goodput([flow(0), flow(1, streams=4)])
        assert kept > 45 * M, (kept, flood)
    (alone,) = rig.goodput([rig.out(1)])
    assert within(alone, 100 * M)


def test_a_live_change_is_one_step_and_takes_milliseconds(rig: NetRig) -> None:
    shaper, pid = rig.shaper(), rig.containers[0].pid
    shaper.round((AD, pid, {"egress_limit": 10 * M}))
    took = []
    for limit in (20, 30, 40, 50, 100):
        answer = shaper.round((AD, pid, {"egress_limit": limit * M}))
        assert [f"wanted {limit * M}" in step for step in answer["done"]] == [True]
        took.append(answer["took_s"])
    assert sorted(took)[2] < 0.04  # twice what is promised


def test_what_somebody_changes_is_seen_and_repaired(rig: NetRig) -> None:
    shaper, pid, veth = rig.shaper(egress=100 * M), rig.containers[0].pid, rig.containers[0].veth
    unit = (AD, pid, {"egress": 50 * M, "ingress_limit": 20 * M})
    shaper.round(unit)
    stands = rig.everything(), rig.tc("class", "show", "dev", OUT), rig.tc("class", "show", "dev", veth)
    for vandalism in (
        ("tc", "qdisc", "del", "dev", veth, "root"),
        ("tc", "qdisc", "del", "dev", veth, "ingress"),
        ("tc", "qdisc", "replace", "dev", veth, "root", "pfifo"),
        ("tc", "class", "change", "dev", veth, "classid", "f13:2", "htb", "rate", "1gbit"),
        ("tc", "filter", "del", "dev", OUT, "parent", "f11:"),
        ("ip", "link", "del", OUT),
        ("tc", "qdisc", "del", "dev", rig.uplink, "root"),
    ):
        rig.run(rig.host, *vandalism)
        assert shaper.round(unit)["repaired"], vandalism
        assert shaper.round(unit)["done"] == []
        now = rig.everything(), rig.tc("class", "show", "dev", OUT), rig.tc("class", "show", "dev", veth)
        assert [sorted(part.splitlines()) for part in now] == [sorted(part.splitlines()) for part in stands]
    assert within(rig.goodput([rig.into(0)])[0], 20 * M)
    rig.run(rig.host, "iptables", "-t", "mangle", "-F", "UNITFLEET-FWD")
    wait_for(lambda: bool(shaper.round(unit)["repaired"]), "the rules are repaired", timeout_s=20)


def test_an_interface_that_was_made_anew_is_known_by_its_number_where_no_event_tells(rig: NetRig) -> None:
    shaper, unit = rig.shaper(), (AD, rig.containers[0].pid, {"egress_limit": 20 * M})
    shaper.round(unit)
    assert shaper.round(unit, look=False)["done"] == []
    rig.run(rig.host, "ip", "link", "del", OUT)
    rig.run(rig.host, "ip", "link", "add", OUT, "type", "ifb")
    assert shaper.round(unit, look=False)["repaired"]
    assert shaper.round(unit)["done"] == []
    assert f"Redirect to device {OUT}" in rig.tc("filter", "show", "dev", rig.containers[0].veth, "ingress")


def test_a_next_agent_adopts_what_stands(rig: NetRig) -> None:
    unit = (AD, rig.containers[0].pid, {"egress": 50 * M, "ingress_limit": 20 * M})
    first = rig.shaper(egress=100 * M)
    assert first.round(unit)["done"]
    second = rig.shaper(egress=100 * M)
    assert "another agent" in second.round(unit)["net"]["units"][0]["trouble"]
    first.end()
    assert second.round(unit)["done"] == []
    assert second.round(unit)["net"]["units"][0]["in_force"]


def test_a_unit_on_the_hosts_network_is_limited_by_its_control_group(rig: NetRig) -> None:
    before = rig.everything()
    shaper = rig.shaper(egress=200 * M)
    with own_group(rig.name) as group:
        process = rig.process(["sleep", "1000"], rig.host)
        (group / "cgroup.procs").write_text(str(process.pid))
        unit = (AD, process.pid, {"egress_limit": 10 * M, "ingress_limit": 5 * M})
        net = shaper.round(unit, (WEB, rig.containers[0].pid, {}))["net"]
        assert "host's network" in net["units"][0]["trouble"] and net["units"][0]["how"] == "cgroup"
        inside = Flow(rig.host, rig.world, rig.world_address, prefix=entering(group))
        outside = Flow(rig.host, rig.world, rig.world_address)
        mine, others = rig.goodput([inside, outside])
        assert within(mine, 10 * M) and others > 50 * M, (mine, others)
        (told,) = shaper.round(unit)["net"]["units"]
        assert told["sent_bytes"] > 2 * M
    shaper.round()
    assert rig.everything() == before


@pytest.fixture
def net_cls_released() -> Iterator[None]:
    """End the hierarchy that a test used once everything in it is gone: kept, it would blind Engines."""
    yield
    asyncio.run(hierarchies.end({"net_cls"}))


@pytest.mark.skipif(not V1, reason="this kernel has no net_cls")
def test_on_cgroup_v1_a_unit_is_known_by_its_net_cls_group(
    net_cls_released: None, rig: NetRig, tmp_path: Path
) -> None:
    """In a mount namespace of its own: nobody else sees the hierarchy."""
    enter = (
        "sh",
        "-c",
        f'mount -t cgroup -o net_cls net_cls {tmp_path} && mkdir {tmp_path}/unit && exec "$@"',
        "sh",
    )
    shaper = rig.shaper(prefix=("unshare", "--mount", *enter), egress=200 * M)
    try:
        shaper.round()  # once it answers, the hierarchy is mounted
        inside = ("nsenter", f"--mount=/proc/{shaper.pid}/ns/mnt", *entering(tmp_path / "unit"))
        process = rig.process([*inside, "sleep", "1000"], rig.host)
        wait_for(lambda: "net_cls:/unit" in Path(f"/proc/{process.pid}/cgroup").read_text(), "it is in its group")
        unit = (AD, process.pid, {"egress_limit": 10 * M})
        shaper.settle(unit)
        assert shaper.round(unit)["done"] == []
        assert "--cgroup 2527" in rig.run(rig.host, "iptables", "-t", "mangle", "-S", "UNITFLEET-OUT")
        out = Flow(rig.host, rig.world, rig.world_address)
        mine, others = rig.goodput([dataclasses.replace(out, prefix=inside), out])
        assert within(mine, 10 * M) and others > 50 * M, (mine, others)
        shaper.round()
        in_its_mounts = ("nsenter", f"--mount=/proc/{shaper.pid}/ns/mnt", "cat")
        assert rig.run(rig.host, *in_its_mounts, f"{tmp_path}/unit/net_cls.classid") == "0\n"
    finally:
        empty = f"while ! rmdir {tmp_path}/unit; do kill -9 $(cat {tmp_path}/unit/cgroup.procs); sleep 0.1; done"
        rig.run(rig.host, "nsenter", f"--mount=/proc/{shaper.pid}/ns/mnt", "timeout", "10", "sh", "-c", empty)


def test_image_pulls_are_kept_to_their_limit_and_nothing_else_is(rig: NetRig, tmp_path: Path) -> None:
    before, path = rig.everything(), str(tmp_path / "docker.sock")
    with own_group(rig.name) as group:
        engine = rig.process([sys.executable, "-c", LISTEN, path], rig.host)
        (group / "cgroup.procs").write_text(str(engine.pid))
        wait_for(Path(path).exists, "the Engine listens")
        shaper = rig.shaper(pull_limit=20 * M, engine_socket=path)
        assert shaper.round()["done"] == []  # no pull is under way
        assert shaper.round(pulling=True)["failed"] == []
        answer = shaper.round(pulling=True)
        assert (answer["done"], answer["net"]["trouble"], answer["loaded"]) == ([], "", False)
        pull = Flow(rig.host, rig.world, rig.world_address, reverse=True)
        pulled, others = rig.goodput([dataclasses.replace(pull, prefix=entering(group)), pull])
        assert 0.7 < pulled / (20 * M) < 1.4 and others > 100 * M, (pulled, others)
        assert shaper.round()["done"] and rig.everything() == before
        assert shaper.round(pulling=True)["done"]
    engine.wait(10)  # it went with its group, and its pulls with it
    assert "no Engine answers" in shaper.round(pulling=True)["net"]["trouble"]
    assert rig.everything() == before


def test_pulls_are_capped_to_half_of_a_known_uplink_and_none_where_that_can_not_be_had(
    rig: NetRig, tmp_path: Path
) -> None:
    before, path = rig.everything(), str(tmp_path / "docker.sock")
    with own_group(rig.name) as group:
        engine = rig.process([sys.executable, "-c", LISTEN, path], rig.host)
        wait_for(Path(path).exists, "the Engine listens")
        wanted: dict[str, Any] = {"pull_limit": None, "engine_socket": path, "ingress": 200 * M}
        shaper = rig.shaper(**wanted)
        assert "shares its control group" in shaper.round(pulling=True)["net"]["trouble"]
        assert rig.everything() == before
        (group / "cgroup.procs").write_text(str(engine.pid))
        assert shaper.round(pulling=True)["net"]["trouble"] == ""
        assert f"unitfleet-pull-{100 * M}-" in rig.everything()
        unit, other = (AD, rig.containers[0].pid, {"egress_limit": M}), rig.shaper()
        assert not other.round(unit)["net"]["units"][0]["in_force"]  # one agent of a host shapes at a time
        shaper.round()
        shaper.round()  # there was nothing to do
        assert other.round(unit)["net"]["units"][0]["in_force"]
        other.round()
        hidden = 'mount -t tmpfs none /usr/sbin && exec "$@"'
        bare = rig.shaper(prefix=("unshare", "--mount", "sh", "-c", hidden, "sh"), **wanted)
        assert "iptables is not installed" in bare.round(pulling=True)["net"]["trouble"]
        assert rig.everything() == before


def test_the_firewall_takes_any_rate_as_a_pull_limit_and_it_reads_as_it_was_meant() -> None:
    with NetRig(containers=0) as rig:
        rates = [64_000, 20 * M, 100 * M, 500 * M, *(gigabits * 1000 * M for gigabits in (1, 5, 10, 20, 50, 400))]
        rules = [
            pull_rule(Group(2, "docker", 5), 1, rate).replace("-m cgroup --path docker ", "") for rate in rates
        ]
        (wanted, _) = rule_lines(rig.uplink, (), (), rules)
        restored = rig.process(["iptables-restore", "--noflush"], rig.host)
        restored.communicate(script(wanted.lines, ()), timeout=10)
        assert restored.returncode == 0
        assert ours(rig.run(rig.host, "iptables-save", "-t", "mangle")) == wanted.lines
        assert len(re.findall(r"--hashlimit-name ufp-\S{1,11} ", "\n".join(set(wanted.lines)))) == len(rates)


def test_no_rule_is_left_by_a_firewall_that_refuses_for_a_moment(rig: NetRig, tmp_path: Path) -> None:
    before, busy = rig.everything(), tmp_path / "busy"
    stub = tmp_path / "iptables-restore"
    real = shutil.which(stub.name, path="/usr/sbin:/sbin:/usr/bin")
    stub.write_text(f'#!/bin/sh\n[ -e {busy} ] && exit 4\nexec {real} "$@"\n')
    stub.chmod(0o755)
    shaper = rig.shaper(prefix=("env", f"PATH={tmp_path}:{os.environ['PATH']}"), egress=100 * M)
    first, second = ((AD, inside.pid, {"egress": 10 * M}) for inside in rig.containers)
    assert shaper.round(first)["failed"] == []
    busy.touch()
    assert len(shaper.round(first, (WEB, *second[1:]))["failed"]) == 1  # those of IPv6 stand
    assert shaper.round()["failed"]
    busy.unlink()
    shaper.round()
    assert rig.everything() == before


def test_on_the_uplink_a_flood_takes_neither_a_guarantee_nor_what_is_reserved(rig: NetRig) -> None:
    flood = Flow(rig.host, rig.world, rig.world_address, streams=4)
    reserved = Flow(rig.host, rig.world, rig.world_address, port=5999)
    shaper = rig.shaper(egress=100 * M, ports=[5999])
    shaper.round((AD, rig.containers[0].pid, {"egress": 50 * M}), (WEB, rig.containers[1].pid, {}))
    kept, heartbeat, flooded, _ = rig.goodput([rig.out(0), reserved, flood, rig.out(1, streams=2)])
    assert kept > 45 * M  # a container's packets find their class again after the ifb
    assert heartbeat > 2 * flooded, (heartbeat, flooded)


def test_a_qdisc_of_somebody_else_on_the_uplink_is_left_alone_and_named(rig: NetRig) -> None:
    rig.tc("qdisc", "add", "dev", rig.uplink, "root", "handle", "77:", "pfifo", "limit", "99")
    before = rig.everything()
    shaper = rig.shaper(egress=100 * M)
    net = shaper.round((AD, rig.containers[0].pid, {"egress": 50 * M}))["net"]
    assert "uplink0 has a qdisc that somebody else set (pfifo 77:)" in net["trouble"]
    assert net["units"][0]["in_force"] and not net["shaped"]  # among containers it holds
    shaper.round()
    assert rig.everything() == before


def test_a_unit_whose_process_is_gone_harms_nobody(rig: NetRig) -> None:
    process = rig.process(["sleep", "1000"], rig.host)
    process.kill()
    process.wait(10)
    answer = rig.shaper().round(
        (WEB, process.pid, {"egress_limit": M}), (AD, rig.containers[0].pid, {"egress_limit": M})
    )
    assert [unit["unit"] for unit in answer["net"]["units"]] == [AD]
    assert answer["net"]["units"][0]["in_force"]


def test_nothing_is_left_after_a_hundred_units_have_come_and_gone(rig: NetRig) -> None:
    before = rig.everything()
    shaper, inside = rig.shaper(egress=100 * M), rig.containers[0]
    stay = (WEB, rig.containers[1].pid, {"egress": 10 * M})
    shaper.round(stay)
    standing = rig.everything()
    began = time.monotonic()
    for number in range(100):
        shaper.round(stay, (f"job@{number}.service", inside.pid, {"egress_limit": M, "ingress_limit": M}))
    shaper.round(stay)
    assert rig.everything() == standing
    assert rig.tc("class", "show", "dev", OUT).count("class htb") == 3
    shaper.round()
    assert rig.everything() == before
    assert time.monotonic() - began < 40
