"""For Prometheus: this master's metrics, and where every master and agent is to be scraped (http_sd)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from unit_master.api.backend import BACKEND, Backend, answer
from unit_master.metrics import CONTENT_TYPE

PATHS = frozenset(("/metrics", "/v1/targets"))
"""What the metrics token opens, beside the API's own."""

REFRESH_S = 15
"""How often Prometheus is expected to ask for the targets."""

_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of Prometheus' HTTP service discovery: addresses that share these labels."""

    targets: tuple[str, ...]
    labels: dict[str, str]


async def metrics(request: web.Request) -> web.Response:
    """Return this master's metrics in Prometheus' text format."""
    return web.Response(body=request.app[BACKEND].metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def targets(request: web.Request) -> web.Response:
    """Return every master and agent that is there now; a machine that is lost is named by the masters' metrics.

    The labels that begin with `__meta_unitfleet_` are for `relabel_configs` (prometheus.io, HTTP SD).
    """
    backend = request.app[BACKEND]
    response = answer((*_masters(backend), *_agents(backend)))
    response.headers["X-Prometheus-Refresh-Interval-Seconds"] = str(REFRESH_S)
    return response


def _masters(backend: Backend) -> tuple[Targets, ...]:
    known = {backend.name: backend.addresses}
    if (leader := backend.cache.view.leader) is not None:
        known[leader.value.name] = leader.value.api
    found = []
    for name, addresses in sorted(known.items()):
        hosts = [urlsplit(address).netloc for address in addresses if address.startswith("http")]
        if hosts:
            labels = {"component": "master", "__meta_unitfleet_master": name, **_scheme(backend)}
            found.append(Targets(targets=(hosts[0],), labels=labels))
    return tuple(found)


def _scheme(backend: Backend) -> dict[str, str]:
    """Return the label by which Prometheus asks by TLS; without it, it asks as its own settings say."""
    return {"__scheme__": "https"} if backend.joins is not None else {}


def _agents(backend: Backend) -> tuple[Targets, ...]:
    found = []
    for machine, entry in sorted(backend.cache.view.presence.items()):
        present = entry.value
        host = f"[{present.address}]" if ":" in present.address else present.address
        labels = {"component": "agent", "machine": present.name, "__meta_unitfleet_machine_id": machine}
        labels |= _scheme(backend)
        for key, value in sorted(backend.cache.view.metadata(machine).items()):
            labels[f"__meta_unitfleet_metadata_{_NOT_IN_LABELS.sub('_', key)}"] = value
        found.append(Targets(targets=(f"{host}:{present.port}",), labels=labels))
    return tuple(found)
