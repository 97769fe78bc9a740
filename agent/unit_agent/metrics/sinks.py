"""How the shipping of logs to each sink goes, as gauges and a counter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from unit_agent.logs.shipper import SinkStatus

LABELS = ("machine", "sink")


def families(machine: str, sinks: Sequence[SinkStatus]) -> Iterator[Metric]:
    """Yield what each sink was sent, what waits for it on this host, and whether it takes lines now."""
    sent = CounterMetricFamily("unitfleet_log_sink_lines", "Lines that the sink has acknowledged.", labels=LABELS)
    waiting = GaugeMetricFamily(
        "unitfleet_log_sink_waiting_lines", "Lines on this host that the sink has not.", labels=LABELS
    )
    up = GaugeMetricFamily("unitfleet_log_sink_up", "0 while the sink is away or refuses.", labels=LABELS)
    for sink in sinks:
        labels = [machine, sink.name]
        sent.add_metric(labels, sink.sent)
        waiting.add_metric(labels, sink.waiting)
        up.add_metric(labels, not sink.trouble)
    yield from (sent, waiting, up)
