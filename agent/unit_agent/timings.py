"""How often an agent does what: profiles of the lease, and the paces that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Profile(StrEnum):
    """`--profile`: how soon a dead machine is noticed."""

    DEFAULT = "default"
    FAST = "fast"
    FASTEST = "fastest"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. `renew_s` is a quarter of `ttl_s`: three renewals may fail before the lease ends."""

    ttl_s: float
    renew_s: float
    relist_s: float = 240.0  # ± 20 %: lists anew although watches run
    verify_s: float = 60.0  # ± 20 %: looks at its own presence although it is watched
    first_sync_s: float = 30.0  # waits so long for the store after a start, then acts from the local copy
    look_s: float = 30.0  # asks drivers for their copies although they send events
    list_timeout_s: float = 30.0
    report_s: float = 1.0  # at most one state a unit in this time, but for what the leader acts on
    resources_s: float = 30.0
    store_retry_s: tuple[float, float] = (0.5, 30.0)  # first and longest back-off of lists and reports
    unit_retry_s: tuple[float, float] = (1.0, 60.0)  # first and longest back-off of one unit


TIMINGS = {
    Profile.DEFAULT: Timings(ttl_s=10.0, renew_s=2.5),
    Profile.FAST: Timings(ttl_s=5.0, renew_s=1.25),
    Profile.FASTEST: Timings(ttl_s=3.0, renew_s=0.75),
}
