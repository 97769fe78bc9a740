"""Metrics, rules and dashboards, held against Debian's real Prometheus and Alertmanager."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from functional.monitoring import PACKAGING, Alertmanager, Prometheus, tool
from harness.cluster import Cluster

pytestmark = pytest.mark.broker
on_module_loop = pytest.mark.asyncio(loop_scope="module")

RULE_S = 60.0
TOKEN = "a-token-for-prometheus"
UNIT = "[Service]\nExecStart=/bin/sleep 100000\n"
FAILS = "[Service]\nType=exec\nExecStart=/bin/sh -c 'sleep 1; exit 3'\n"
DASHBOARDS = sorted((PACKAGING / "dashboards").glob("*.json"))
_SAMPLE = re.compile(r"_(bucket|count|sum)$")
_METRIC = re.compile(r"\b(?:unitfleet|container)_[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Watched:
    """A cluster, and who watches it."""

    cluster: Cluster
    prometheus: Prometheus
    alertmanager: Alertmanager


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def watched() -> AsyncIterator[Watched]:
    tool("prometheus"), tool("prometheus-alertmanager")
    with tempfile.TemporaryDirectory(prefix="uf-watch-") as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        token = root / "metrics.token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        patch.setenv("UNITFLEET_METRICS_TOKEN_FILE", str(token))
        async with Cluster.on_loopback(root) as cluster:
            alertmanager = Alertmanager(root)
            prometheus = Prometheus(root, cluster.endpoints[0], token, alertmanager.port)
            async with alertmanager.running(), prometheus.running():
                for name in ("web", "api"):
                    cluster.write(f"{name}.service", UNIT)
                cluster.write("big.service", UNIT + "[X-Fleet]\nMemory=60T\n")
                await cluster.must("start", "web", "api")
                await cluster.unitctl("start", "--no-block", "big")
                yield Watched(cluster, prometheus, alertmanager)


@on_module_loop
async def test_every_master_and_agent_is_found_and_scraped(watched: Watched) -> None:
    wanted = {"master", "agent m1", "agent m2", "agent m3"}

    async def all_up() -> bool:
        return await watched.prometheus.up() == wanted

    await watched.cluster.wait_until(all_up, RULE_S, f"{sorted(wanted)} are scraped")


@on_module_loop
async def test_one_master_leads_and_it_alone_tells_of_units(watched: Watched) -> None:
    async def told() -> bool:
        leaders = await watched.prometheus.series("unitfleet_leader == 1")
        units = await watched.prometheus.series("unitfleet_unit_desired_state")
        return len(leaders) == 1 and sorted(one["unit"] for one in units) == [
            "api.service",
            "big.service",
            "web.service",
        ]

    await watched.cluster.wait_until(told, RULE_S, "each unit is told of once")


@on_module_loop
async def test_a_unit_without_a_place_is_told_with_the_rule(watched: Watched) -> None:
    async def told() -> bool:
        found = await watched.prometheus.series('unitfleet_unit_unschedulable{unit="big.service"} == 3')
        return [one["reason"] for one in found] == ["resources"]

    await watched.cluster.wait_until(told, RULE_S, "big.service is refused by its resources on three machines")


@on_module_loop
async def test_every_metric_of_the_dashboards_exists_and_every_expression_is_taken(watched: Watched) -> None:
    expressions = [(path.name, expression) for path in DASHBOARDS for expression in _expressions(path)]
    assert len(expressions) > 30
    named = {_SAMPLE.sub("", name) for _, expression in expressions for name in _METRIC.findall(expression)}

    async def missing() -> set[str]:
        return named - {_SAMPLE.sub("", name) for name in await watched.prometheus.ask("metadata")}

    async def all_there() -> bool:
        return not await missing()

    try:
        await watched.cluster.wait_until(all_there, RULE_S, "every metric exists")
    finally:
        assert not await missing()
    for name, expression in expressions:
        filled = expression.replace("$machine", ".*").replace("$unit", ".*")
        assert await watched.prometheus.ask("query", query=filled), f"{name}: {expression}"


@on_module_loop
async def test_an_alert_is_delivered_when_a_unit_fails(watched: Watched) -> None:
    watched.cluster.write("bad.service", FAILS)
    await watched.cluster.unitctl("start", "bad")

    async def delivered() -> bool:
        return watched.alertmanager.firing("UnitfleetUnitFailed", unit="bad.service")

    await watched.cluster.wait_until(delivered, RULE_S, "the alert came")


@on_module_loop
async def test_an_alert_is_delivered_when_a_host_is_lost(watched: Watched) -> None:
    await watched.cluster.power_off(watched.cluster.machine("m3"))

    async def delivered() -> bool:
        return watched.alertmanager.firing("UnitfleetMachineLost", machine="m3")

    await watched.cluster.wait_until(delivered, RULE_S, "the alert came")


def test_the_metrics_token_opens_nothing_else(watched: Watched) -> None:
    def status(path: str) -> int:
        request = urllib.request.Request(f"{watched.cluster.endpoints[0]}{path}")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert (status("/metrics"), status("/v1/targets"), status("/v1/units")) == (200, 200, 401)


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "unitfleet.rules.yml"), ("test", "rules", "unitfleet.rules.test.yml")]
)
def test_promtool_passes(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run([tool("promtool"), *arguments], cwd=PACKAGING, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _expressions(dashboard: Path) -> list[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]
