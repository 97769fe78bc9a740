"""Bandwidth that is in force on this machine, as gauges and counters."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from unitfleet.api import NetLimits

LABELS = ("unit", "machine", "direction")


def families(net: NetLimits | None) -> Iterator[Metric]:
    """Yield ceilings, drops and backlogs a unit and direction; without a ceiling there is no limit series."""
    limit = GaugeMetricFamily("unitfleet_net_limit_bits_per_second", "The ceiling in force, bit/s.", labels=LABELS)
    guaranteed = GaugeMetricFamily(
        "unitfleet_net_guaranteed_bits_per_second", "The guarantee in force, bit/s.", labels=LABELS
    )
    dropped = CounterMetricFamily("unitfleet_net_dropped_packets", "Packets dropped by a limit.", labels=LABELS)
    backlog = GaugeMetricFamily("unitfleet_net_backlog_bytes", "Waiting to be sent.", labels=LABELS)
    broken = GaugeMetricFamily(
        "unitfleet_net_not_in_force", "1 while what a unit's text wants can't be had.", labels=("unit", "machine")
    )
    for unit in net.units if net is not None else ():
        broken.add_metric([unit.unit, unit.machine], not unit.in_force)
        for direction, ceiling, least, lost, waits in (
            ("egress", unit.egress_limit, unit.egress, unit.sent_dropped, unit.sent_backlog),
            ("ingress", unit.ingress_limit, unit.ingress, unit.received_dropped, unit.received_backlog),
        ):
            labels = [unit.unit, unit.machine, direction]
            if unit.in_force and ceiling:
                limit.add_metric(labels, ceiling)
            if unit.in_force and least:
                guaranteed.add_metric(labels, least)
            if lost >= 0:
                dropped.add_metric(labels, lost)
                backlog.add_metric(labels, waits)
    yield from (limit, guaranteed, dropped, backlog, broken)
