"""What a master counts of its own work, for Prometheus; `cluster_metrics` adds the cluster as it is."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

from unit_master.actions import Action, DeleteUnit, Evict, Gone, Pend, PinImage, Place, Want
from unitfleet.model import CopyPhase, Wanted

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TO_RUNNING = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_RESULTS: dict[type, str] = {
    Place: "placed",
    Want: "renewed",
    Gone: "gone",
    Evict: "evicted",
    Pend: "pending",
    DeleteUnit: "deleted",
    PinImage: "pinned",
}


class MasterMetrics:
    """The instruments of one master, and what `/metrics` answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._placed: dict[str, tuple[str, float]] = {}  # not seen to run yet: machine, loop time
        self.terms = self._counter("leader_changes", "Terms that this master began; summed: changes of leader.")
        self.decisions = self._counter("scheduler_decisions", "Decisions carried out, by result.", "result")
        self.rejections = self._counter(
            "scheduler_filter_rejections", "Machines that a rule refused to units left pending.", "rule"
        )
        self.planned = self._histogram("scheduler_decision_duration_seconds", "One pass over the units.")
        self.reconciled = self._histogram("reconcile_duration_seconds", "One round: plan and write.")
        self.errors = self._counter("reconcile_errors", "Rounds that failed, by kind.", "kind")
        self.to_running = self._histogram(
            "scheduler_unit_time_to_running_seconds",
            "From the decision to place a unit until its copy is seen to run.",
            buckets=TO_RUNNING,
        )
        self.store_calls = self._histogram("etcd_request_duration_seconds", "Calls to etcd.", "op")

    def led(self) -> None:
        """Note that a term begins; what was under way in an earlier one was another leader's to see."""
        self.terms.inc()
        self._placed.clear()

    def observe_store(self, operation: str, seconds: float) -> None:
        """Note one call to the store."""
        self.store_calls.labels(operation).observe(seconds)

    def decided(self, action: Action, at: float) -> None:
        """Note an action that was carried out, at loop time `at`."""
        result = "moved" if isinstance(action, Place) and action.moved_from else _RESULTS.get(type(action))
        if result is not None:
            self.decisions.labels(result).inc()
        if isinstance(action, Place) and action.wanted is Wanted.LAUNCHED:
            self._placed[action.unit] = (action.machine, at)
        elif isinstance(action, Gone | Evict | DeleteUnit):
            self._placed.pop(action.unit, None)
        elif isinstance(action, Pend):
            for count in action.pending.refused:
                self.rejections.labels(count.rule).inc(count.machines)

    def seen(self, unit: str, machine: str, phase: CopyPhase, at: float) -> None:
        """Note what a machine says of a unit: that it runs ends its way from the placement."""
        placed = self._placed.get(unit)
        if placed is not None and placed[0] == machine:
            if phase is CopyPhase.RUNNING:
                self.to_running.observe(at - placed[1])
            if phase in (CopyPhase.RUNNING, CopyPhase.FINISHED, CopyPhase.FAILED):
                del self._placed[unit]

    def add(self, collector: Collector) -> None:
        """Let `/metrics` also tell what this collects when it is asked."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"unitfleet_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, *labels: str, buckets: tuple[float, ...] = FAST) -> Histogram:
        return Histogram(f"unitfleet_{name}", help, labels, buckets=buckets, registry=self.registry)
