"""How often an agent does what: its lease's pace, which the profile sets, and the paces of all profiles."""

from __future__ import annotations

from dataclasses import dataclass

from unitfleet.profiles import Profile


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds."""

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


TIMINGS = {profile: Timings(ttl_s=profile.ttl_s, renew_s=profile.renew_s) for profile in Profile}
