"""Points in time as a person writes them: `2h` ago, `14:05`, `2026-01-31 14:05:09`, `@1769868309`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import click

from unitfleet import timespan
from unitfleet.problems import BadValue

_FORMS = ("%H:%M", "%H:%M:%S")


class Moment(click.ParamType[float]):
    """A point in time, as seconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; a clock time is of today."""
        if isinstance(value, float):
            return value
        try:
            return point(str(value), time.time())
        except ValueError:
            self.fail(
                f"{str(value)[:40]!r} is no time: write 2h or 30min (ago), 14:05, 2026-01-31 14:05:09, @SECONDS",
                param,
                ctx,
            )


def point(text: str, now: float) -> float:
    """Return a point in time; raises ValueError. Without a zone it is local time."""
    text = text.strip()
    if text.startswith("@"):
        return float(text[1:])
    if text == "now":
        return now
    for form in _FORMS:
        try:
            clock = datetime.strptime(text, form)
        except ValueError:
            continue
        today = datetime.fromtimestamp(now)
        return today.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        ago = timespan.parse_finite(text.removesuffix(" ago").removeprefix("-"))
    except BadValue as error:
        raise ValueError(str(error)) from error
    return now - ago


def iso(at: float) -> str:
    """Write a point in time, local: 2026-01-31T14:05:09.123+01:00; "-" when it is not known."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds") if at > 0 else "-"
