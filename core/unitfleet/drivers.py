"""Which drivers can run a unit, and what keeps the others from it."""

from __future__ import annotations

from unitfleet import limits
from unitfleet import options as words
from unitfleet.problems import BadValue, Problems
from unitfleet.quantities import boolean
from unitfleet.section import Section
from unitfleet.service import SYSTEMD_TYPES
from unitfleet.systemd_keys import KEYS
from unitfleet.unitfile import Option

DOCKER: tuple[str, ...] = ("docker",)
SYSTEMD: tuple[str, ...] = ("systemd",)
PROCESS = "process"
PROCESS_TOO: tuple[str, ...] = ("systemd", PROCESS)


def for_service(service: Section, unit: Section, problems: Problems) -> tuple[str, ...]:
    """Return the drivers for a `[Service]` unit; each thing only systemd can do is a warning with its line."""
    reasons = [(option, reason) for option in service.options if (reason := _only_systemd(option))]
    reasons += [(option, f"{option.name}=") for option in unit.options if _needs_jobs(option)]
    for option, reason in reasons:
        problems.warn(option.line, f"{reason} needs the systemd driver: no other host will take this unit")
    _warn_of_dependencies(unit, problems)
    return SYSTEMD if reasons else PROCESS_TOO


def for_container(service: Section, unit: Section, problems: Problems) -> tuple[str, ...]:
    """Return the driver for a `[Container]` unit; what it would not carry out of other sections is refused."""
    for option in service.options:
        if option.name in ("ExecStart", "ExecStop", "ExecReload"):
            problems.error(
                option.line,
                f"{option.name}= does not go with [Container]",
                "the container's command is Exec= in [Container]",
            )
        elif option.name == "SendSIGKILL" and _no(option.value):
            problems.error(
                option.line,
                f"{option.name}={option.value} does not go with [Container]: the Docker Engine kills what has not "
                "ended in time",
                "TimeoutStopSec=infinity gives it all the time it wants",
            )
        elif not _container_takes(option):
            problems.error(
                option.line,
                f"{option.name}={option.value[:40]} in [Service] is not supported beside [Container]",
                "allowed are " + ", ".join(sorted(words.CONTAINER_SERVICE - {"StartLimitInterval"})),
            )
    for option in unit.options:
        if _needs_jobs(option):
            problems.error(option.line, f"{option.name}= is not supported beside [Container]", "leave it out")
    _warn_of_dependencies(unit, problems)
    return DOCKER


def _only_systemd(option: Option) -> str | None:
    """Return what of a [Service] assignment only systemd can do, or None."""
    name, value = option.name, option.value
    if name == "Type":
        return f"Type={value}" if value in SYSTEMD_TYPES else None
    if name in words.OUTPUTS:
        return None if not value or value in words.HARMLESS_OUTPUTS else f"{name}={value[:40]}"
    if name == "StandardInput":
        return None if value in ("", "null") else f"{name}={value[:40]}"
    if name in limits.KEYS and limits.needs_systemd(option):
        return f"{name}={value}"
    if name in words.PROCESS_SERVICE or name in words.HARMLESS_SERVICE or not _known(option) or _off(value):
        return None
    return f"{name}="


def _container_takes(option: Option) -> bool:
    name, value = option.name, option.value
    if name == "Type":
        return value in ("", "simple", "exec", "notify", "oneshot")
    if name == "KillMode":
        return value in ("", "mixed", "control-group")
    if name == "SendSIGKILL":
        return True  # what `no` would mean is refused with its reason
    if name in words.OUTPUTS:
        return not value or value in words.HARMLESS_OUTPUTS
    harmless = name in words.CONTAINER_SERVICE or name in words.HARMLESS_SERVICE or name == "NotifyAccess"
    return harmless or not value or not _known(option)


def _needs_jobs(option: Option) -> bool:
    known = option.name in words.DEPENDENCIES or option.name in words.HARMLESS_UNIT
    return _known(option) and not known and not _off(option.value)


def _warn_of_dependencies(unit: Section, problems: Problems) -> None:
    """Say once that other units of the host are not waited for; what every host has by itself is passed over."""
    found = [
        option
        for option in unit.options
        if option.name in words.DEPENDENCIES
        and any(not word.endswith(".target") and word not in words.ALWAYS_THERE for word in option.value.split())
    ]
    if found:
        keys = ", ".join(dict.fromkeys(f"{option.name}=" for option in found))
        problems.warn(
            found[0].line,
            f"{keys}: only the systemd driver orders and binds units of one host",
            "MachineOf= in [X-Fleet] keeps two units on one machine",
        )


def _known(option: Option) -> bool:
    return option.name in KEYS.get(option.section, ())


def _off(value: str) -> bool:
    """Tell whether a value switches a feature off, which every driver can do."""
    if not value:
        return True
    return _no(value) and value != "0"


def _no(value: str) -> bool:
    try:
        return not boolean(value)
    except BadValue:
        return False
