"""The cluster as gauges: this master's own always, units and machines only on the master that leads.

So a sum over all masters counts nothing twice; `unitfleet_leader` says on each of them who leads. Names follow
kube-state-metrics where it has the thing; a unit's state is one series, of value 1, for the phase it is in.
Values are seconds, bytes, cores and bit/s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from unit_master.cache import Cache
from unit_master.views import Views, machine_views
from unitfleet.api import MachineView, UnitView
from unitfleet.election import TTL_S, Term
from unitfleet.measured import MeasuredStore
from unitfleet.model import Capacity, MachineStatus

RESOURCES = ("cpu", "memory", "disk", "egress", "ingress")


class ClusterCollector(Collector):
    """Gauges that are computed when they are asked for."""

    def __init__(
        self,
        name: str,
        cache: Cache,
        store: MeasuredStore,
        streams: Callable[[], int],
        term: Callable[[], Term | None],
    ) -> None:
        self._name = name
        self._cache = cache
        self._store = store
        self._streams = streams
        self._term = term

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what is collected depends on the moment."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield this master's own gauges, and the cluster's while it leads."""
        term = self._term()
        build = GaugeMetricFamily(
            "unitfleet_build_info", "Which version this is.", labels=["component", "version"]
        )
        build.add_metric(["master", version("unitfleet")], 1)
        yield build
        leads = GaugeMetricFamily("unitfleet_leader", "1 on the master that leads, else 0.", labels=["master"])
        leads.add_metric([self._name], 1 if term else 0)
        yield leads
        yield GaugeMetricFamily(
            "unitfleet_sse_clients", "Streams of the API that are open.", value=self._streams()
        )
        behind = max(0, self._store.revision - self._cache.view.revision)
        yield GaugeMetricFamily(
            "unitfleet_etcd_watch_lag_revisions", "Revisions that were heard of and not seen yet.", value=behind
        )
        yield GaugeMetricFamily(
            "unitfleet_etcd_stale_seconds", "How long etcd has been silent.", value=self._cache.stale_s()
        )
        if term is not None:
            left = max(0.0, term.renewed_at + TTL_S - asyncio.get_running_loop().time())
            yield GaugeMetricFamily(
                "unitfleet_lease_remaining_seconds", "Of the leader's lease, at least.", value=left
            )
            yield from _cluster(self._cache)


def _cluster(cache: Cache) -> Iterator[Metric]:
    view = cache.view
    views = Views(view)
    yield from _units([shown for name in views.names() if (shown := views.unit(name)) is not None])
    yield from _machines(machine_views(view))
    yield GaugeMetricFamily(
        "unitfleet_scheduler_queue_depth", "Units that wait for a machine.", value=len(view.pending)
    )


def _units(units: list[UnitView]) -> Iterator[Metric]:
    desired = GaugeMetricFamily(
        "unitfleet_unit_desired_state", "1 for what the user wants of a unit.", labels=["unit", "state"]
    )
    state = GaugeMetricFamily(
        "unitfleet_unit_state", "1 for the phase a unit is in.", labels=["unit", "machine", "state"]
    )
    info = GaugeMetricFamily(
        "unitfleet_unit_info", "What a unit runs.", labels=["unit", "machine", "image", "spec"]
    )
    restarts = CounterMetricFamily(
        "unitfleet_unit_restarts", "By its restart policy, since it was started.", labels=["unit", "machine"]
    )
    unplaced = GaugeMetricFamily(
        "unitfleet_unit_unschedulable", "Machines that a rule refuses to a unit.", labels=["unit", "reason"]
    )
    for unit in units:
        if unit.is_template:
            continue
        desired.add_metric([unit.name, unit.target], 1)
        place = unit.copies[0] if unit.copies else None
        state.add_metric([unit.name, place.machine_name if place else "", unit.phase], 1)
        for copy in unit.copies:
            info.add_metric([unit.name, copy.machine_name, copy.image, unit.spec[:12]], 1)
            restarts.add_metric([unit.name, copy.machine_name], copy.restarts)
        if unit.pending is not None:
            for count in unit.pending.refused:
                unplaced.add_metric([unit.name, count.rule], count.machines)
    yield from (desired, state, info, restarts, unplaced)


def _machines(machines: list[MachineView]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "unitfleet_machine_info", "Which machine this is.", labels=["machine", "id", "address", "version"]
    )
    ready = GaugeMetricFamily("unitfleet_machine_ready", "1 while its agent is heard from.", labels=["machine"])
    open_ = GaugeMetricFamily("unitfleet_machine_schedulable", "1 while it takes new units.", labels=["machine"])
    units = GaugeMetricFamily("unitfleet_machine_units", "Units placed there.", labels=["machine"])
    amounts = {
        word: GaugeMetricFamily(f"unitfleet_machine_resource_{word}", help, labels=["machine", "resource"])
        for word, help in (
            ("capacity", "What a machine offers."),
            ("reserved", "What its units requested."),
            ("used", "What is used of it."),
        )
    }
    for one in machines:
        info.add_metric([one.name, one.id, one.address, one.versions.get("agent", "")], 1)
        ready.add_metric([one.name], one.status != MachineStatus.LOST and one.status != MachineStatus.SUSPECT)
        takes = one.status == MachineStatus.READY and not one.cordoned and not one.drained
        open_.add_metric([one.name], takes)
        units.add_metric([one.name], one.units)
        for word, amount in (("capacity", one.capacity), ("reserved", one.reserved), ("used", one.used)):
            for resource, value in _amounts(amount):
                amounts[word].add_metric([one.name, resource], value)
    yield from (info, ready, open_, units, *amounts.values())


def _amounts(amount: Capacity) -> Iterator[tuple[str, float]]:
    for resource in RESOURCES:
        yield resource, float(getattr(amount, resource))
