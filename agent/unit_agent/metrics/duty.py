"""The duty `metrics`: `GET /metrics`, computed when it is asked from what the other duties hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import TypeVar

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from unit_agent.agent import Agent
from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.images.duty import ImagesDuty
from unit_agent.logs.shipper import Shipper
from unit_agent.metrics import copies, net, sinks
from unit_agent.resources.duty import FiguresDuty
from unit_agent.shaping.duty import Shaping
from unitfleet.api import NetLimits
from unitfleet.errors import DriverError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

D = TypeVar("D")


class MetricsDuty:
    """Answers Prometheus. It works only while it is asked."""

    def __init__(self, context: Context, *, now: Callable[[], float] = time.time) -> None:
        self._instruments = context.instruments
        self._agent = context.agent
        self._collector = AgentCollector(context.agent, now)
        self._instruments.add(self._collector)

    @property
    def name(self) -> str:
        return "metrics"

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Nothing hangs on a change."""

    def order_changed(self, unit: str) -> None:
        """Nothing hangs on orders."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get("/metrics", self._serve)]

    async def _serve(self, request: web.Request) -> web.Response:
        self._collector.net = None
        shaping = find(self._agent, Shaping)
        with contextlib.suppress(DriverError):  # the duty itself says why it can't read them
            self._collector.net = await shaping.limits() if shaping else None
        return web.Response(body=self._instruments.text(), headers={"Content-Type": CONTENT_TYPE})


class AgentCollector(Collector):
    """This machine and its copies as gauges, as last sampled."""

    def __init__(self, agent: Agent, now: Callable[[], float]) -> None:
        self._agent = agent
        self._now = now
        self.net: NetLimits | None = None
        """Bandwidth as of this request."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what is collected depends on the moment."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield everything but what is counted as it happens."""
        machine = self._agent.facts.name
        build = GaugeMetricFamily("unitfleet_build_info", "Its version.", labels=["component", "version"])
        build.add_metric(["agent", version("unitfleet")], 1)
        yield build
        silent = self._agent.presence.silent_s()
        if silent is not None:
            beat = GaugeMetricFamily(
                "unitfleet_heartbeat_timestamp_seconds", "When its lease was last renewed.", labels=["machine"]
            )
            beat.add_metric([machine], self._now() - silent)
            yield beat
        figures = find(self._agent, FiguresDuty)
        if figures is not None:
            yield from copies.families(figures.latest())
        yield from net.families(self.net)
        shipper = find(self._agent, Shipper)
        yield from sinks.families(machine, shipper.status() if shipper is not None else ())
        warm = GaugeMetricFamily(
            "unitfleet_image_warm", "1 for an image of the warm set that is here.", labels=["machine", "image"]
        )
        images = find(self._agent, ImagesDuty)
        for image, held in images.warm_set().items() if images is not None else ():
            warm.add_metric([machine, image], held)
        yield warm


def find(agent: Agent, kind: type[D]) -> D | None:
    """Return the agent's duty of a kind, None when it has none."""
    return next((duty for duty in agent.duties if isinstance(duty, kind)), None)
