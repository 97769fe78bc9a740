"""`Health*=` of `[Container]`: the health command, the startup command before it, and what follows from them."""

from __future__ import annotations

from functools import partial

from unitfleet import quantities, timespan
from unitfleet.problems import BadValue
from unitfleet.quadlet_values import dollars, json_words
from unitfleet.section import Section, absolute
from unitfleet.service import choice
from unitfleet.spec import HealthAction, HealthSpec, StartupProbe

_KEYS = tuple(
    f"Health{name}"
    for name in "Cmd Interval Timeout Retries StartPeriod OnFailure LogDestination MaxLogCount MaxLogSize".split()
)
_STARTUP = "HealthStartupCmd"


def read(section: Section) -> HealthSpec | None:
    """Read the keys; None when none of them is there."""
    if not any(section.last(key) for key in (*_KEYS, _STARTUP)):
        return None
    return HealthSpec(
        test=section.get("HealthCmd", _test, ()),
        interval_s=section.get("HealthInterval", _span, 30.0),
        timeout_s=section.get("HealthTimeout", _span, 30.0),
        retries=section.get("HealthRetries", partial(quantities.whole, low=1, high=1000), 3),
        start_period_s=section.get("HealthStartPeriod", timespan.parse_finite, 0.0),
        on_failure=section.get("HealthOnFailure", choice(HealthAction), HealthAction.NONE),
        startup=_startup(section),
        log_destination=section.get("HealthLogDestination", _destination, ""),
        max_log_count=section.get("HealthMaxLogCount", partial(quantities.whole, low=0, high=10_000), 5),
        max_log_size=section.get("HealthMaxLogSize", partial(quantities.whole, low=0, high=2**20), 500),
    )


def _startup(section: Section) -> StartupProbe | None:
    option = section.last(_STARTUP)
    if option is None:
        return None
    if section.last("HealthCmd") is None:
        section.problems.error(
            option.line, f"{_STARTUP}= without HealthCmd=", "say what is to be asked after it: HealthCmd="
        )
    return StartupProbe(
        test=section.get(_STARTUP, _test, ()),
        interval_s=section.get("HealthStartupInterval", _span, 30.0),
        timeout_s=section.get("HealthStartupTimeout", _span, 30.0),
        retries=section.get("HealthStartupRetries", partial(quantities.whole, low=0, high=1000), 0),
        success=max(1, section.get("HealthStartupSuccess", partial(quantities.whole, low=0, high=1000), 1)),
    )


def _test(text: str) -> tuple[str, ...]:
    """Read the command as podman does: `none`, a JSON list, `CMD …`, or text for the shell."""
    if text.lower() == "none":
        return ("NONE",)
    if text.startswith("["):
        words = json_words(text)
        return words if words[:1] in (("CMD",), ("CMD-SHELL",), ("NONE",)) else ("CMD", *words)
    kind, _, rest = text.partition(" ")
    if kind == "CMD":
        return ("CMD", *rest.split())
    return ("CMD-SHELL", dollars(rest if kind == "CMD-SHELL" else text))


def _span(text: str) -> float:
    span = timespan.parse_finite(text)
    if span < 0.001:
        raise BadValue(f"{text[:40]!r} is too short: at least 1ms; HealthCmd=none switches the check off")
    return span


def _destination(text: str) -> str:
    return text if text in ("local", "events_logger") else absolute(text)
