"""Debian's own Prometheus and Alertmanager, as an operator runs them, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.etcd import free_ports
from harness.eventually import eventually

PACKAGING = Path(__file__).parents[2] / "packaging" / "monitoring"
READY_S = 30.0


def tool(name: str) -> str:
    """Return a program of Debian's packages; skips the test where it is missing."""
    return shutil.which(name) or pytest.skip(f"no {name} on PATH (Debian: apt-get install {name})")


class Prometheus:
    """A Prometheus with our rules, told by a master (http_sd) whom to scrape. Rules fire at once: no `for`."""

    def __init__(self, directory: Path, master: str, token: Path, alertmanager: int) -> None:
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._directory = directory
        rules = (PACKAGING / "unitfleet.rules.yml").read_text()
        (directory / "rules.yml").write_text(re.sub(r"\n +for: .*", "", rules))
        config = (PACKAGING / "prometheus.yml").read_text()
        for shipped, here in (
            (r"unitfleet\.rules\.yml", "rules.yml"),
            (r"127\.0\.0\.1:9093", f"127.0.0.1:{alertmanager}"),
            (r"http://127\.0\.0\.1:4001", master),
            (r"/etc/unitfleet/metrics\.token", str(token)),
            (r"_interval: 15s", "_interval: 1s"),
        ):
            assert re.search(shipped, config), f"{shipped} stands in the shipped prometheus.yml"
            config = re.sub(shipped, here, config)
        (directory / "prometheus.yml").write_text(config)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Prometheus]:
        argv = [
            *(tool("prometheus"), f"--config.file={self._directory}/prometheus.yml"),
            *(f"--storage.tsdb.path={self._directory}/data", f"--web.listen-address={self.url[7:]}"),
        ]
        with _process(argv, self._directory / "prometheus.log"):
            await eventually(self._ready, within_s=READY_S, what=lambda: "prometheus is ready")
            yield self

    async def ask(self, path: str, **query: str) -> Any:
        """Return the data of one call of its HTTP API."""
        return (await _get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]

    async def series(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of every series that an expression gives now."""
        return [one["metric"] for one in (await self.ask("query", query=expression))["result"]]

    async def up(self) -> set[str]:
        """Return the components that are scraped, a machine's with its name."""
        found = await self.series("up == 1")
        return {f"{labels['component']} {labels.get('machine', '')}".strip() for labels in found}

    async def _ready(self) -> bool:
        return await _answers(f"{self.url}/-/ready")


class Alertmanager:
    """An Alertmanager that sends all it gets to a webhook of ours: `alerts` are those that came."""

    def __init__(self, directory: Path) -> None:
        self.port, self._hook = free_ports(2)
        self.alerts: list[dict[str, Any]] = []
        self._directory = directory
        config = (PACKAGING / "alertmanager.yml").read_text()
        config = re.sub(r"http://127\.0\.0\.1:9099", f"http://127.0.0.1:{self._hook}", config)
        (directory / "alertmanager.yml").write_text(re.sub(r"group_wait: .*", "group_wait: 0s", config))

    def firing(self, name: str, **labels: str) -> bool:
        """Tell whether an alert of this name and these labels was delivered."""
        return any(
            alert["labels"]["alertname"] == name and labels.items() <= alert["labels"].items()
            for alert in self.alerts
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Alertmanager]:
        app = web.Application()
        app.router.add_post("/alerts", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._hook).start()
        argv = [
            *(tool("prometheus-alertmanager"), f"--config.file={self._directory}/alertmanager.yml"),
            *(f"--storage.path={self._directory}/am", f"--web.listen-address=127.0.0.1:{self.port}"),
            "--cluster.listen-address=",
        ]
        try:
            with _process(argv, self._directory / "alertmanager.log"):
                ready = f"http://127.0.0.1:{self.port}/-/ready"
                await eventually(lambda: _answers(ready), within_s=READY_S, what=lambda: "alertmanager is ready")
                yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.alerts += (await request.json())["alerts"]
        return web.Response()


@contextlib.contextmanager
def _process(argv: list[str], log: Path) -> Any:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _answers(url: str) -> bool:
    try:
        await _get(url, plain=True)
    except OSError:
        return False
    return True


async def _get(url: str, *, plain: bool = False) -> Any:
    def fetch() -> Any:
        with urllib.request.urlopen(url, timeout=5) as answer:
            raw = answer.read()
        return raw if plain else json.loads(raw)

    return await asyncio.to_thread(fetch)
