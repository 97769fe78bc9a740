"""What can be found from this host about the way to the API: for `unitctl doctor`, whoever answers or not."""

from __future__ import annotations

import os
from collections.abc import Iterable

from unitctl.context import Context
from unitctl.transport import Transport, describe
from unitfleet.errors import UnitfleetError
from unitfleet.findings import MOST_SKEW_S, Finding, Severity, skew


def unusable(error: UnitfleetError) -> Finding:
    """Tell of a context, an endpoint or a token file that can't be used."""
    return Finding(severity=Severity.PROBLEM, about="context", what=error.message, fix=error.hint or "")


def warned(context: Context) -> list[Finding]:
    """Tell of a token file that more than its owner can read."""
    why = "who reads it can do what you can"
    fix = f"chmod 600 {context.token_file}"
    return [
        Finding(severity=Severity.WARNING, about="token", what=text.split("; chmod")[0], why=why, fix=fix)
        for text in context.warnings
    ]


def endpoints(transport: Transport, *, answered: bool) -> list[Finding]:
    """Connect to each endpoint; that one is away hurts only when no other `answered`."""
    found = []
    for endpoint in transport.endpoints:
        try:
            transport.open(endpoint).close()
        except OSError as error:
            found.append(
                Finding(
                    severity=Severity.WARNING if answered else Severity.PROBLEM,
                    about="endpoint",
                    what=f"{endpoint.name}, of {transport.context.source}: {describe(error)}",
                    why="commands go to the others" if answered else "",
                    fix="is a unit-master running there, and is its address right?",
                )
            )
        else:
            if not answered:
                what = f"{endpoint.name} takes connections, but gives no answer that can be used"
                found.append(Finding(severity=Severity.NOTE, about="endpoint", what=what))
    return found


def from_the_future(paths: Iterable[str], now: float) -> list[Finding]:
    """Tell when a file that was written here is younger than this host's clock says it is."""
    ages = [(os.path.getmtime(path) - now, path) for path in paths if path and os.path.exists(path)]
    ahead_s, path = max(ages, default=(0.0, ""))
    if ahead_s <= MOST_SKEW_S:
        return []
    what = f"this host's clock was set back: {path} is {ahead_s:.0f} s from the future"
    return [Finding(severity=Severity.WARNING, about="clock", what=what, fix="start chrony or systemd-timesyncd")]


def clock(master: str, at: float, sent: float, took_s: float) -> list[Finding]:
    """Compare this host's clock with that of the master that was asked."""
    ahead_s = -skew(at, sent, took_s)
    if abs(ahead_s) <= MOST_SKEW_S:
        return []
    what = f"this host's clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} {master}'s"
    why = "ages and --since are off by that"
    fix = "start chrony or systemd-timesyncd"
    return [Finding(severity=Severity.WARNING, about="clock", what=what, why=why, fix=fix)]
