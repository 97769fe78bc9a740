"""Bandwidth in `[X-Fleet]`: `Egress= Ingress=` (guaranteed), `EgressLimit= IngressLimit=` (ceiling) and `Burst=`.

Rates are bits a second with K, M, G to the base of 1000, a burst is bytes with K, M to the base of 1024. What no
agent can enforce is refused by name: accepted and ignored is the worst answer. The same judgement is asked of
what `unitctl net limit` puts in place of the text's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from unitfleet import xfleet
from unitfleet.model import Bandwidth, Requirements
from unitfleet.names import UnitName
from unitfleet.problems import BadValue, Problems
from unitfleet.quantities import size
from unitfleet.rates import rate, rate_text
from unitfleet.spec import ContainerSpec
from unitfleet.unitfile import XFLEET, UnitFile

FIELDS = {
    "Egress": "egress",
    "Ingress": "ingress",
    "EgressLimit": "egress_limit",
    "IngressLimit": "ingress_limit",
    "Burst": "burst",
}
"""Key → field of `Bandwidth`."""

MIN_BURST, MAX_BURST = 2 * 1024, 64 * 1024**2
"""A packet has to fit in; more than the upper one is no burst any more."""

ENFORCING = ("docker", "process")
"""The drivers whose units an agent shapes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a key's value beside the others, or beside what the unit is."""

    key: str
    message: str
    hint: str


def read(
    unit: UnitName, file: UnitFile, drivers: tuple[str, ...], container: ContainerSpec | None, problems: Problems
) -> Bandwidth:
    """Read what a text says of bandwidth; what is wrong with it is added to `problems`."""
    said: dict[str, int] = {}
    lines: dict[str, int] = {}
    unread = False
    for option in file.options:
        if option.section != XFLEET or option.name not in FIELDS:
            continue
        said.pop(FIELDS[option.name], None)  # the last assignment counts, an empty one takes it back
        value = xfleet.expand(option.value, unit).strip('"')
        if value:
            lines[option.name] = option.line
            try:
                said[FIELDS[option.name]] = reader(option.name)(value)
            except BadValue as error:
                problems.error(option.line, f"{option.name}=: {error}")
                unread = True
    bandwidth = Bandwidth(**said)
    for fault in () if unread else faults(bandwidth, drivers, container):
        problems.error(lines[fault.key], fault.message, fault.hint)
    return bandwidth


def reader(key: str) -> Callable[[str], int]:
    """Return what reads the value of a key; it raises `BadValue`, which shows the right form."""
    return burst if key == "Burst" else rate


def burst(text: str) -> int:
    """Read a burst in bytes; raises `BadValue`."""
    value = size(text)
    if not MIN_BURST <= value <= MAX_BURST:
        raise BadValue(f"{text[:40]!r} is not from 2K to 64M: write bytes, as in 32K")
    return value


def faults(bandwidth: Bandwidth, drivers: tuple[str, ...], container: ContainerSpec | None) -> list[Fault]:
    """Return why this can't be had by a unit that these drivers can run (`container` None: a `[Service]`)."""
    said = [key for key, field in FIELDS.items() if getattr(bandwidth, field)]
    if not said:
        return []
    found = []
    for key, most in (("Egress", "EgressLimit"), ("Ingress", "IngressLimit")):
        guaranteed, limit = getattr(bandwidth, FIELDS[key]), getattr(bandwidth, FIELDS[most])
        if limit and guaranteed > limit:
            message = f"{key}={rate_text(guaranteed)} is above {most}={rate_text(limit)}"
            found.append(Fault(key, message, "a guarantee is at most its limit"))
    if said == ["Burst"]:
        found.append(
            Fault("Burst", "Burst= goes with no rate", "give Egress=, EgressLimit= or their kin beside it")
        )
    if not enforcing(drivers):
        why = f"{said[0]}= can't be enforced: only units of the {' and '.join(ENFORCING)} drivers are shaped"
        found.append(Fault(said[0], why, "leave it out"))
    elif container is not None and container.networks == ("none",):
        found.append(
            Fault(said[0], f"{said[0]}= goes with no Network=none: the unit has no network", "leave it out")
        )
    elif container is None or container.networks == ("host",):
        why = "can't be enforced for a unit on the host's network: only what it sends"
        hint = "leave it out; Egress= and EgressLimit= hold"
        found += [Fault(key, f"{key}= {why}", hint) for key in said if key.startswith("Ingress")]
    return found


def enforcing(drivers: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the drivers whose units are shaped."""
    return tuple(driver for driver in drivers if driver in ENFORCING)


def asked(needs: Requirements, bandwidth: Bandwidth | None) -> Requirements:
    """Return what a unit asks of a machine with this bandwidth in place of its text's (None: the text's).

    It asks for its guarantees, and for a driver whose units are shaped.
    """
    if bandwidth is None:
        return needs
    drivers = enforcing(needs.drivers) if bandwidth else needs.drivers
    if (needs.egress, needs.ingress, needs.drivers) == (bandwidth.egress, bandwidth.ingress, drivers):
        return needs
    return msgspec.structs.replace(needs, egress=bandwidth.egress, ingress=bandwidth.ingress, drivers=drivers)


def in_words(bandwidth: Bandwidth) -> str:
    """Write it for a person: `egress 20M (at most 50M), ingress at most 1G`, "no limits" when nothing is said.

    >>> in_words(Bandwidth(egress=20_000_000, egress_limit=50_000_000, ingress_limit=10**9))
    'egress 20M (at most 50M), ingress at most 1G'
    """
    parts = []
    for word, guaranteed, limit in (
        ("egress", bandwidth.egress, bandwidth.egress_limit),
        ("ingress", bandwidth.ingress, bandwidth.ingress_limit),
    ):
        if guaranteed and limit:
            parts.append(f"{word} {rate_text(guaranteed)} (at most {rate_text(limit)})")
        elif guaranteed:
            parts.append(f"{word} {rate_text(guaranteed)}")
        elif limit:
            parts.append(f"{word} at most {rate_text(limit)}")
    if bandwidth.burst:
        parts.append(f"burst {bandwidth.burst} bytes")
    return ", ".join(parts) or "no limits"
