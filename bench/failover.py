"""bench/failover: from the power-off of a host with 5 of 20 containers to all 20 running, by the Engines' word."""

from __future__ import annotations

import asyncio
import random
import time

from measure import Bench, at_most, container, main, running_containers, say, started_at

from harness.cluster import Cluster, Machine
from harness.engines import Engines
from harness.eventually import eventually
from harness.image import IMAGE
from unitfleet.profiles import Profile

HOSTS, UNITS = 4, 20
AIMS = {Profile.DEFAULT: at_most(15), Profile.FAST: at_most(8)}


async def measure(bench: Bench) -> None:
    if reason := Engines.available():
        say(f"nothing is measured: it {reason}")
        return
    for profile, aim in AIMS.items():
        if not bench.wants(profile.value):
            continue
        say(f"profile {profile}: power-off of a host with {UNITS // HOSTS} of {UNITS} containers")
        async with Cluster.in_lab(bench.directory, hosts=HOSTS, profile=profile.value) as cluster:
            took = []
            for _ in range(bench.runs):
                took.append(await one_run(cluster, profile.renew_s, 3 * aim.bound))
                say(f"  {took[-1]:.2f} s")
                await cluster.restore()
        bench.figure(f"profile {profile}, {UNITS // HOSTS} of {UNITS} containers", took, "s", aim)


async def one_run(cluster: Cluster, renew_s: float, limit_s: float) -> float:
    """Return the seconds from the power-off to the start of the last container."""
    cluster.write("ad@.container", container(IMAGE, "host") + "Spread=rack\n")
    await cluster.must("start", f"ad@<1..{UNITS}>")
    before = await asyncio.to_thread(running_containers, cluster, cluster.machines)
    doomed = random.choice(cluster.machines)
    lost = {unit for unit, [(machine, _)] in before.items() if machine is doomed}
    assert len(before) == UNITS and len(lost) == UNITS // HOSTS, before
    await asyncio.sleep(random.uniform(0, renew_s))  # at any moment between two renewals
    began = time.time()
    await cluster.power_off(doomed)
    others = [machine for machine in cluster.machines if machine is not doomed]

    async def all_of_them() -> dict[str, list[tuple[Machine, str]]]:
        found = await asyncio.to_thread(running_containers, cluster, others)
        return found if len(found) == UNITS else {}

    # the exact times are in the containers themselves
    after = await eventually(all_of_them, within_s=limit_s, what=lambda: "all units run", every_s=0.25)
    at = await asyncio.to_thread(started_at, cluster, after)
    untouched = {unit: copies for unit, copies in before.items() if unit not in lost}
    assert {unit: after[unit] for unit in untouched} == untouched, "a unit that was not lost was moved"
    return max(at[unit] for unit in lost) - began


if __name__ == "__main__":
    main("failover", __doc__, [each.value for each in AIMS], measure, runs=10, quick_runs=2, limit_s=1800)
