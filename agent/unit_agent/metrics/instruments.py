"""What an agent counts as it works: calls of the Docker Engine, pulls, calls of the store."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

CALLS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
PULLS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Instruments:
    """One agent's instruments, and the registry that `/metrics` writes out."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._docker = Histogram(
            "unitfleet_docker_request_duration_seconds",
            "Calls to the Docker Engine.",
            ["op"],
            buckets=CALLS_S,
            registry=self.registry,
        )
        self._store = Histogram(
            "unitfleet_etcd_request_duration_seconds",
            "Calls to etcd.",
            ["op"],
            buckets=CALLS_S,
            registry=self.registry,
        )
        self._pulls = Histogram(
            "unitfleet_image_pull_duration_seconds", "Pulls that came.", buckets=PULLS_S, registry=self.registry
        )
        self._pulled_bytes = Counter(
            "unitfleet_image_pull_bytes", "Downloaded by pulls, compressed.", registry=self.registry
        )
        self._failed_pulls = Counter("unitfleet_image_pull_failures", "Pulls that failed.", registry=self.registry)

    def called(self, operation: str, seconds: float) -> None:
        """Note a call to the Docker Engine."""
        self._docker.labels(operation).observe(seconds)

    def stored(self, operation: str, seconds: float) -> None:
        """Note a call to the store."""
        self._store.labels(operation).observe(seconds)

    def pulled(self, seconds: float, size: int) -> None:
        """Note a pull that came, and the bytes that it downloaded."""
        self._pulls.observe(seconds)
        self._pulled_bytes.inc(size)

    def pull_failed(self) -> None:
        """Note a pull that failed."""
        self._failed_pulls.inc()

    def add(self, collector: Collector) -> None:
        """Let `/metrics` also tell what this collects when it is asked."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
