"""What a unit file may say of bandwidth, and how the rest is refused."""

from __future__ import annotations

import pytest

from unitfleet.accept import read
from unitfleet.bandwidth import asked, faults, in_words
from unitfleet.errors import InvalidUnit
from unitfleet.model import Bandwidth
from unitfleet.spec import UnitSpec

CONTAINER = "[Container]\nImage=ad:1\n"
HOST = "[Container]\nImage=ad:1\nNetwork=host\n"
SERVICE = "[Service]\nExecStart=/bin/ad\n"


def accepted(lines: str, unit: str = CONTAINER) -> UnitSpec:
    return read("a@3.service", f"{unit}[X-Fleet]\n{lines}\n")


def refused(lines: str, unit: str = CONTAINER) -> str:
    with pytest.raises(InvalidUnit) as caught:
        accepted(lines, unit)
    return "\n".join(caught.value.problems)


def test_every_key_is_read_in_its_own_unit_of_measure() -> None:
    spec = accepted("Egress=20M\nIngress=1.5G\nEgressLimit=50M\nIngressLimit=2G\nBurst=32K")
    assert spec.bandwidth == Bandwidth(
        egress=20_000_000, ingress=1_500_000_000, egress_limit=50_000_000, ingress_limit=2 * 10**9, burst=32 * 1024
    )


def test_the_scheduler_is_told_of_guarantees_and_not_of_limits() -> None:
    needs = accepted("Egress=20M\nIngressLimit=2G").requirements
    assert (needs.egress, needs.ingress) == (20_000_000, 0)
    assert accepted("EgressLimit=1M").requirements.egress == 0


def test_the_last_assignment_counts_and_an_empty_one_takes_it_back() -> None:
    assert accepted("Egress=1M\nEgress=2M").bandwidth == Bandwidth(egress=2_000_000)
    assert accepted("Egress=1M\nEgress=").bandwidth == Bandwidth()


def test_an_instance_may_stand_in_a_rate() -> None:
    assert accepted("Egress=%iM").bandwidth.egress == 3_000_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Egress=0", ":4: Egress=: '0' is no rate: it lets nothing through"),
        ("Ingress=-5M", ":4: Ingress=: '-5M' is no rate: it is negative"),
        ("EgressLimit=10MB", "'10MB' is bytes, rates are bits a second: write 80M"),
        ("IngressLimit=10MiB", "'10MiB' is bytes, rates are bits a second: write 83.886M"),
        ("Egress=fast", "write bits a second, as in 500K, 300M, 2.5G"),
        (
            "Egress=30M\nEgressLimit=20M",
            ":4: Egress=30M is above EgressLimit=20M (a guarantee is at most its limit)",
        ),
        ("IngressLimit=1M\nIngress=1001K", ":5: Ingress=1.001M is above IngressLimit=1M"),
        ("Burst=32K", "Burst= goes with no rate"),
        ("Egress=1M\nBurst=1", "Burst=: '1' is not from 2K to 64M: write bytes, as in 32K"),
        ("Egress=1M\nBurst=1G", "not from 2K to 64M"),
        ("egress=1M", "did you mean Egress?"),
    ],
    ids=lambda value: value.replace("\n", " "),
)
def test_a_wrong_value_is_refused_with_its_line_and_the_right_form(line: str, said: str) -> None:
    assert said in refused(line)


@pytest.mark.parametrize("unit", [HOST, SERVICE], ids=["a container on the host's network", "a service"])
def test_only_what_it_sends_can_be_bounded_on_the_hosts_network(unit: str) -> None:
    assert accepted("Egress=5M\nEgressLimit=9M\nBurst=32K", unit).bandwidth.egress_limit == 9_000_000
    for key in ("Ingress", "IngressLimit"):
        why = f"{key}= can't be enforced for a unit on the host's network: only what it sends"
        assert why in refused(f"{key}=5M", unit)


def test_a_unit_without_a_network_sends_nothing() -> None:
    assert "Egress= goes with no Network=none" in refused("Egress=1M", f"{CONTAINER}Network=none\n")


def test_a_unit_that_only_systemd_runs_is_not_shaped() -> None:
    assert "only units of the docker and process drivers are shaped" in refused(
        "Egress=1M", f"{SERVICE}Type=dbus\n"
    )
    assert "only units of the docker and process drivers are shaped" in _timer("Egress=1M")
    assert accepted("Egress=1M", SERVICE).requirements.drivers == ("process",)


def _timer(line: str) -> str:
    with pytest.raises(InvalidUnit) as caught:
        read("a.timer", f"[Timer]\nOnCalendar=daily\n[X-Fleet]\n{line}\n")
    return "\n".join(caught.value.problems)


def test_what_is_set_live_takes_the_place_of_the_texts_and_keeps_to_shaped_drivers() -> None:
    needs = accepted("", SERVICE).requirements
    assert asked(needs, None) is needs
    assert asked(needs, Bandwidth()) is needs
    limited = asked(needs, Bandwidth(egress=7, ingress_limit=9))
    assert (limited.egress, limited.ingress, limited.drivers) == (7, 0, ("process",))
    assert asked(accepted("Egress=5M").requirements, Bandwidth()).egress == 0


def test_bandwidth_is_written_as_a_person_would() -> None:
    assert in_words(Bandwidth()) == "no limits"
    assert in_words(Bandwidth(ingress=10**9, burst=4096)) == "ingress 1G, burst 4096 bytes"
    assert faults(Bandwidth(), (), None) == []
