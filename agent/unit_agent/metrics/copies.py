"""The copies of this machine under cAdvisor's names, so that dashboards made for it work.

Labels are cAdvisor's `id` (the cgroup), `name` (the container) and `image`, and ours: `unit`, `template`,
`instance_id`, `machine`. A figure that this machine can't tell has no series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from unitfleet.api import MachineFigures, UnitFigures
from unitfleet.names import parse

LABELS = ("id", "name", "image", "unit", "template", "instance_id", "machine")

Value = Callable[[UnitFigures], float | None]


COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("cpu_usage_seconds", "CPU time used.", lambda unit: unit.cpu_s),
    ("cpu_cfs_throttled_seconds", "CPU time refused by its quota.", lambda unit: unit.throttled_s),
    ("fs_reads_bytes", "Read from disks.", lambda unit: unit.read_bytes),
    ("fs_writes_bytes", "Written to disks.", lambda unit: unit.write_bytes),
    ("network_receive_bytes", "Received.", lambda unit: unit.received_bytes),
    ("network_transmit_bytes", "Sent.", lambda unit: unit.sent_bytes),
    (
        "network_receive_packets_dropped",
        "Packets for it that were dropped.",
        lambda unit: unit.received_dropped if unit.received_bytes >= 0 else None,
    ),
    (
        "network_transmit_packets_dropped",
        "Packets of it that were dropped.",
        lambda unit: unit.sent_dropped if unit.sent_bytes >= 0 else None,
    ),
    ("oom_events", "Processes of it that were killed for memory.", lambda unit: unit.oom_kills),
)

GAUGES: tuple[tuple[str, str, Value], ...] = (
    ("memory_usage_bytes", "Memory, page cache included.", lambda unit: unit.memory_usage),
    ("memory_working_set_bytes", "Memory that can't be dropped.", lambda unit: unit.memory),
    ("spec_memory_limit_bytes", "Its memory limit, 0 for none.", lambda unit: unit.memory_limit),
    ("processes", "Processes in it.", lambda unit: unit.processes),
    ("file_descriptors", "Open files of the process with the most.", lambda unit: unit.open_files),
    ("ulimits_soft", "How many files a process of it may open.", lambda unit: unit.open_files_limit or None),
    ("start_time_seconds", "When it was started.", lambda unit: unit.started_at),
    ("last_seen", "When these figures were taken.", lambda unit: unit.at),
)


def families(figures: MachineFigures) -> Iterator[Metric]:
    """Yield one family a figure, with a series a copy."""
    labelled = [(unit, _labels(unit, figures.name)) for unit in figures.units]
    for kind, table in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
        for name, help, value in table:
            family = kind(f"container_{name}", help, labels=LABELS)
            for unit, labels in labelled:
                amount = value(unit)
                if amount is not None and amount >= 0:
                    family.add_metric(labels, amount)
            yield family


def _labels(unit: UnitFigures, machine: str) -> list[str]:
    name = parse(unit.unit)
    return [unit.cgroup, unit.id, unit.image, unit.unit, name.template, name.instance, machine]
