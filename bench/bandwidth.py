"""bench/bandwidth: goodput under a limit, a guarantee under a flood, and what setting a limit costs.

TCP by iperf3 between network namespaces that the bench makes: containers behind a bridge, and the world beyond the
uplink. The shaping is the agent's own; the kernel's is what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from measure import Bench, at_least, at_most, main, say

from harness.net_rig import Flow, NetRig, Shaper

M = 10**6
LIMITS = (10 * M, 100 * M, 500 * M)
UPLINK = 100 * M
GUARANTEED = 50 * M
BESIDE = 100
"""Containers that stand beside the one whose limit is set."""

GOODPUT_AIM = at_least(0.93)
KEPT_AIM = at_least(47)
SET_AIM = at_most(20)


async def measure(bench: Bench) -> None:
    if reason := NetRig.available():
        say(f"nothing is measured: it {reason}")
        return
    for part, run in (("limit", limits), ("guarantee", guarantees), ("host", on_host), ("set", settings)):
        if bench.wants(part):
            await asyncio.to_thread(run, bench)


def limits(bench: Bench) -> None:
    """Measure what TCP gets of a limit: with headers of 66 in 1514 bytes it can't be more than 0.956."""
    with NetRig(containers=1) as rig:
        shaper, inside = rig.shaper(egress=1000 * M, ingress=1000 * M), rig.containers[0]
        for limit in LIMITS:
            shaper.round(("a.service", inside.pid, {"egress_limit": limit, "ingress_limit": limit}))
            for way, flow in (("out", rig.out(0)), ("in", rig.into(0))):
                passed = [rig.goodput([flow], seconds=seconds(bench))[0] / limit for _ in range(bench.runs)]
                bench.figure(f"goodput of a limit of {limit // M} Mbit/s, {way}", passed, "of it", GOODPUT_AIM)


def guarantees(bench: Bench) -> None:
    """Measure what is left of a guarantee while a neighbour without one floods with four streams."""
    with NetRig(containers=2) as rig:
        shaper = rig.shaper(egress=UPLINK, ingress=UPLINK)
        wanted = {"egress": GUARANTEED, "ingress": GUARANTEED}
        shaper.round(("a.service", rig.containers[0].pid, wanted), ("b.service", rig.containers[1].pid, {}))
        ways: tuple[tuple[str, Callable[..., Flow]], ...] = (("out", rig.out), ("in", rig.into))
        for way, flow in ways:
            both = [rig.goodput([flow(0), flow(1, streams=4)], seconds=seconds(bench)) for _ in range(bench.runs)]
            kept = [mine / M for mine, _ in both]
            bench.figure(
                f"kept of {GUARANTEED // M} Mbit/s on {UPLINK // M} while a neighbour floods, {way}",
                kept,
                "Mbit/s",
                KEPT_AIM,
            )
            alone = [rig.goodput([flow(1)], seconds=seconds(bench))[0] / UPLINK for _ in range(bench.runs)]
            bench.figure(f"lent to the neighbour while it is alone, {way}", alone, "of the uplink", GOODPUT_AIM)


def on_host(bench: Bench) -> None:
    """Measure a guarantee of a container while the host's own processes flood the uplink."""
    with NetRig(containers=1) as rig:
        rig.shaper(egress=UPLINK).round(("a.service", rig.containers[0].pid, {"egress": GUARANTEED}))
        flood = Flow(rig.host, rig.world, rig.world_address, streams=4)
        kept = [rig.goodput([rig.out(0), flood], seconds=seconds(bench))[0] / M for _ in range(bench.runs)]
        bench.figure(
            f"kept of {GUARANTEED // M} Mbit/s on {UPLINK // M} while the host itself floods, out",
            kept,
            "Mbit/s",
            KEPT_AIM,
        )


def settings(bench: Bench) -> None:
    """Measure a whole round that sets one container's limits: look, plan, and netlink."""
    with NetRig(containers=2) as rig:
        _settings(bench, rig, "2 containers")
    if not bench.quick:
        with NetRig(containers=BESIDE) as rig:
            _settings(bench, rig, f"{BESIDE} containers")


def _settings(bench: Bench, rig: NetRig, what: str) -> None:
    shaper = rig.shaper(egress=10_000 * M, ingress=10_000 * M)
    beside = [(f"b{n}.service", each.pid, {"egress_limit": 50 * M}) for n, each in enumerate(rig.containers[1:])]
    shaper.round(*beside)
    first, changed = [], []
    for number in range(5 * bench.runs):
        first.append(_took(shaper, *beside, (f"a{number}.service", rig.containers[0].pid, wanted(10))))
        changed.append(_took(shaper, *beside, (f"a{number}.service", rig.containers[0].pid, wanted(20))))
        shaper.round(*beside, look=False)
    bench.figure(f"first limits of a container, both ways, beside {what}", first, "ms", SET_AIM)
    bench.figure(f"a live change of its limits, both ways, beside {what}", changed, "ms", SET_AIM)


def _took(shaper: Shaper, *asks: tuple[str, int, dict[str, int]]) -> float:
    answer = shaper.round(*asks, look=False)
    if answer["failed"] or not answer["done"]:
        raise RuntimeError(f"nothing was set: {answer}")
    return float(answer["took_s"]) * 1000


def wanted(limit: int) -> dict[str, int]:
    return {"egress_limit": limit * M, "ingress_limit": limit * M}


def seconds(bench: Bench) -> float:
    return 2.0 if bench.quick else 5.0


if __name__ == "__main__":
    main(
        "bandwidth",
        "Measure goodput under a limit, a guarantee under a flood, and what setting a limit costs.",
        ("limit", "guarantee", "host", "set"),
        measure,
        runs=3,
        quick_runs=1,
        limit_s=600.0,
    )
