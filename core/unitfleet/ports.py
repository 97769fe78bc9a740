"""`PublishPort=`: `80`, `8080:80`, `127.0.0.1:8080:80/udp`, `8000-8003:9000-9003`."""

from __future__ import annotations

import ipaddress
import re

from unitfleet.problems import BadValue
from unitfleet.spec import PortSpec

MAX_RANGE = 100

_FORM = re.compile(
    r"(?:(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9.]*):(?=[0-9-]*:))?"
    r"(?:(?P<host>[0-9]{1,5}(?:-[0-9]{1,5})?)?:)?"
    r"(?P<container>[0-9]{1,5}(?:-[0-9]{1,5})?)(?:/(?P<protocol>tcp|udp))?",
    re.ASCII,
)


def parse(text: str) -> tuple[PortSpec, ...]:
    """Read one assignment: a range gives several ports. Without a host port a free one is taken.

    Raises `BadValue`.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise BadValue(
            f"{text[:60]!r} is no port: write 80, 8080:80, 127.0.0.1:8080:80 or 8000-8003:9000-9003, with /udp"
        )
    inside = _range(match["container"], low=1)
    outside = _range(match["host"], low=0) if match["host"] else [0] * len(inside)
    if len(inside) != len(outside):
        raise BadValue(f"{text[:60]!r} has ranges of different lengths")
    address = (match["address"] or "").strip("[]")
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise BadValue(f"{address[:40]!r} is no IP address") from None
    return tuple(
        PortSpec(
            container=port,
            host=host,
            address="" if address in ("0.0.0.0", "::") else address,
            protocol=match["protocol"] or "tcp",
        )
        for port, host in zip(inside, outside, strict=True)
    )


def _range(text: str, *, low: int) -> list[int]:
    first, _, last = text.partition("-")
    start, end = int(first), int(last or first)
    if not low <= start <= end <= 65535:
        raise BadValue(f"{text!r} is no port or range of ports from {low} to 65535")
    if end - start >= MAX_RANGE:
        raise BadValue(f"{text!r} is more than {MAX_RANGE} ports")
    return list(range(start, end + 1))
