"""systemd's time spans (systemd.time(7)): `20min`, `1h 30min`, `1.5s`, `infinity`, a bare number of seconds."""

from __future__ import annotations

import re

from unitfleet.problems import BadValue

_UNITS: dict[str, float] = {}
for _names, _seconds in (
    ("us usec µs μs", 1e-6),
    ("ms msec", 1e-3),
    ("s sec second seconds", 1.0),
    ("m min minute minutes", 60.0),
    ("h hr hour hours", 3600.0),
    ("d day days", 86400.0),
    ("w week weeks", 7 * 86400.0),
    ("M month months", 2629800.0),  # 30.44 days
    ("y year years", 31557600.0),  # 365.25 days
):
    for _name in _names.split():
        _UNITS[_name] = _seconds

_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµμ]*)\s*", re.ASCII)
_MAX = 2**63 / 1e6  # systemd counts microseconds


def parse(text: str, *, default_unit_s: float = 1.0) -> float | None:
    """Return a span in seconds, None for `infinity`; raises `BadValue`."""
    text = text.strip()
    if text == "infinity":
        return None
    total, at = 0.0, 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or (match[2] and match[2] not in _UNITS) or len(match[1]) > 24:
            raise _bad(text)
        total += float(match[1]) * (_UNITS[match[2]] if match[2] else default_unit_s)
        at = match.end()
    if not text or total > _MAX:
        raise _bad(text)
    return total


def parse_finite(text: str) -> float:
    """Return a span in seconds; `infinity` raises `BadValue` like anything that is no span."""
    span = parse(text)
    if span is None:
        raise _bad(text)
    return span


def parse_timeout(text: str) -> float | None:
    """Return a timeout in seconds, None for infinity, which 0 means too (Timeout*Sec= of systemd.service(5))."""
    return parse(text) or None


def _bad(text: str) -> BadValue:
    return BadValue(f"{text[:40]!r} is no time span: write 30s, 20min, 1h 30min, infinity or a number of seconds")
