"""What an agent's figures become for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from unit_agent.logs.shipper import SinkStatus
from unit_agent.metrics import copies, net, sinks
from unit_agent.metrics.instruments import Instruments
from unitfleet.api import MachineFigures, NetLimits, UnitFigures, UnitNet
from unitfleet.model import Capacity


def samples(families: Iterator[Metric]) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def figures(**unit: object) -> MachineFigures:
    one = UnitFigures(unit="adserver@3.service", at=9.0, driver="docker", id="c1", cgroup="/docker/c1", **unit)  # type: ignore[arg-type]
    return MachineFigures(machine="a", name="m1", at=9.0, capacity=Capacity(), used=Capacity(), units=(one,))


def test_a_copy_stands_under_cadvisors_names_with_our_labels() -> None:
    found = samples(copies.families(figures(image="app:1", cpu_s=2.5, memory=7, memory_limit=64, oom_kills=2)))
    labels = {"id": "/docker/c1", "name": "c1", "image": "app:1", "unit": "adserver@3.service"}
    labels |= {"template": "adserver@.service", "instance_id": "3", "machine": "m1"}
    assert found["container_cpu_usage_seconds_total"] == [(labels, 2.5)]
    assert found["container_memory_working_set_bytes"] == [(labels, 7.0)]
    assert found["container_spec_memory_limit_bytes"] == [(labels, 64.0)]
    assert found["container_oom_events_total"] == [(labels, 2.0)]


def test_what_a_machine_can_not_tell_has_no_series() -> None:
    found = samples(copies.families(figures()))
    assert "container_network_receive_bytes_total" not in found
    assert "container_network_transmit_packets_dropped_total" not in found
    assert "container_file_descriptors" not in found
    known = samples(copies.families(figures(received_bytes=0, sent_bytes=5, sent_dropped=1, open_files=3)))
    assert known["container_network_receive_bytes_total"][0][1] == 0.0
    assert known["container_network_transmit_packets_dropped_total"][0][1] == 1.0


def test_a_limit_is_told_only_while_it_is_in_force() -> None:
    def limits(in_force: bool) -> NetLimits:
        unit = UnitNet(
            unit="a.service", machine="m1", egress_limit=10, egress=5, in_force=in_force, sent_dropped=4
        )
        return NetLimits(machine="a", name="m1", at=1.0, units=(unit,))

    egress = {"unit": "a.service", "machine": "m1", "direction": "egress"}
    found = samples(net.families(limits(True)))
    assert found["unitfleet_net_limit_bits_per_second"] == [(egress, 10.0)]
    assert found["unitfleet_net_guaranteed_bits_per_second"] == [(egress, 5.0)]
    assert found["unitfleet_net_dropped_packets_total"] == [(egress, 4.0)]
    assert found["unitfleet_net_not_in_force"][0][1] == 0.0
    broken = samples(net.families(limits(False)))
    assert "unitfleet_net_limit_bits_per_second" not in broken
    assert broken["unitfleet_net_not_in_force"][0][1] == 1.0


def test_a_sink_tells_what_it_got_what_waits_and_whether_it_takes_lines() -> None:
    status = [
        SinkStatus(name="nats", waiting=0, sent=7, trouble=""),
        SinkStatus(name="loki", waiting=9, sent=3, trouble="cannot ship to loki: refused"),
    ]
    found = samples(sinks.families("m1", status))
    nats, loki = {"machine": "m1", "sink": "nats"}, {"machine": "m1", "sink": "loki"}
    assert found["unitfleet_log_sink_lines_total"] == [(nats, 7.0), (loki, 3.0)]
    assert found["unitfleet_log_sink_waiting_lines"] == [(nats, 0.0), (loki, 9.0)]
    assert found["unitfleet_log_sink_up"] == [(nats, 1.0), (loki, 0.0)]


def test_calls_and_pulls_are_counted() -> None:
    instruments = Instruments()
    instruments.called("inspect", 0.002)
    instruments.pulled(3.0, 500)
    instruments.pull_failed()
    text = instruments.text().decode()
    assert 'unitfleet_docker_request_duration_seconds_count{op="inspect"} 1.0' in text
    assert "unitfleet_image_pull_bytes_total 500.0" in text
    assert "unitfleet_image_pull_failures_total 1.0" in text
