"""The `[Service]` section as systemd reads it (systemd.service(5), .exec, .kill): what drivers carry out."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TypeVar

from unitfleet import quantities, timespan
from unitfleet.command import commands
from unitfleet.problems import BadValue, nearest
from unitfleet.section import Section, absolute
from unitfleet.spec import (
    ExitStatus,
    KillMode,
    Limit,
    Restart,
    RestartPolicy,
    ServiceSpec,
    ServiceType,
)
from unitfleet.systemd_keys import KEYS
from unitfleet.unitfile import Option

E = TypeVar("E", bound=StrEnum)
V = TypeVar("V")

START_LIMIT_INTERVAL = ("StartLimitIntervalSec", "StartLimitInterval")
LIMIT_KEYS = tuple(f"Limit{name}" for name in sorted(quantities.LIMITS))

# Types that a service may have which only systemd itself can carry out; idle is simple, started late.
SYSTEMD_TYPES = frozenset(("forking", "dbus", "notify-reload"))

_FOREVER_S = 1e9


def read(section: Section, unit: Section, *, contained: bool = False) -> ServiceSpec:
    """Read `[Service]`; `unit` is `[Unit]`, where StartLimit… may stand as well.

    A service without Type= is simple, or oneshot when it starts nothing; one that is `contained` (by
    `[Container]`) always has something to start.
    """
    kind = _type(section, contained or bool(section.listed("ExecStart")))
    start_s, stop_s = _timeouts(section, kind)
    directory = section.text("WorkingDirectory")
    return ServiceSpec(
        type=kind,
        start_pre=commands(section, "ExecStartPre"),
        start=commands(section, "ExecStart"),
        start_post=commands(section, "ExecStartPost"),
        stop=commands(section, "ExecStop"),
        stop_post=commands(section, "ExecStopPost"),
        reload=commands(section, "ExecReload"),
        environment=section.variables("Environment"),
        environment_files=section.environment_files(),
        working_directory=section.get("WorkingDirectory", _directory, ""),
        working_directory_optional=directory.startswith("-"),
        user=section.text("User"),
        group=section.text("Group"),
        restart=restart_policy(section, unit),
        timeout_start_s=start_s,
        timeout_stop_s=stop_s,
        kill_mode=section.get("KillMode", choice(KillMode), KillMode.CONTROL_GROUP),
        kill_signal=section.get("KillSignal", quantities.signal_number, 15),
        send_sigkill=section.get("SendSIGKILL", quantities.boolean, True),
        remain_after_exit=section.get("RemainAfterExit", quantities.boolean, False),
        notify_access_all=section.get("NotifyAccess", _notify_access, False),
        limits=_limits(section),
    )


def _means(name: str, key: str) -> bool:
    """Tell whether `name` is no key of [Service] and looks like `key`."""
    return name not in KEYS["Service"] and bool(nearest(name, (key,)))


def verify(section: Section, spec: ServiceSpec) -> None:
    """Add what systemd refuses in a service as a whole (service_verify of src/core/service.c)."""
    problems, start = section.problems, section.listed("ExecStart")
    if not start and not section.listed("ExecStop"):
        slips = [option for option in section.options if _means(option.name, "ExecStart")]
        hint = "say what to run: ExecStart="
        if slips:
            hint = f"{slips[0].name}= in line {slips[0].line} is unknown: did you mean ExecStart=?"
        problems.error(_line_of(section), "[Service] has neither ExecStart= nor ExecStop=", hint)
    elif not start and spec.type is not ServiceType.ONESHOT:
        problems.error(_line_of(section), "[Service] has no ExecStart=", "only Type=oneshot may go without")
    elif not start and not spec.remain_after_exit:
        problems.error(
            _line_of(section),
            "[Service] has no ExecStart=",
            "only RemainAfterExit=yes gives a service without it a state to be in",
        )
    if len(spec.start) > 1 and spec.type is not ServiceType.ONESHOT:
        problems.error(
            start[-1].line,
            f"{len(spec.start)} ExecStart= commands in a service of Type={spec.type}",
            "only Type=oneshot may have several; an empty ExecStart= drops those before it",
        )


def verify_restart(section: Section, spec: ServiceSpec) -> None:
    """Add a Restart= that does not go with the type."""
    if spec.type is ServiceType.ONESHOT and spec.restart.when in (Restart.ALWAYS, Restart.ON_SUCCESS):
        option = section.last("Restart")
        section.problems.error(
            option.line if option else 0,
            f"Restart={spec.restart.when} does not go with Type=oneshot",
            "a oneshot that ended well is done; write Restart=on-failure or leave it out",
        )


def restart_policy(section: Section, unit: Section) -> RestartPolicy:
    """Read when and how fast the unit is started again. Start limits may stand in `[Unit]` or, of old, here."""
    interval = _limit(unit, section, START_LIMIT_INTERVAL, _interval, 10.0)
    burst = _limit(unit, section, ("StartLimitBurst",), lambda text: quantities.whole(text, 0, 2**31 - 1), 5)
    return RestartPolicy(
        when=section.get("Restart", choice(Restart), Restart.NO),
        delay_s=section.get("RestartSec", timespan.parse_finite, 0.1),
        limit_interval_s=interval,
        limit_burst=burst if interval > 0 else 0,
        success=_exit_status(section, "SuccessExitStatus"),
        prevent=_exit_status(section, "RestartPreventExitStatus"),
        force=_exit_status(section, "RestartForceExitStatus"),
    )


def choice(kind: type[E]) -> Callable[[str], E]:
    """Return a reader of one of an enum's words, which raises `BadValue` with all of them."""

    def parse(text: str) -> E:
        try:
            return kind(text)
        except ValueError:
            words = [member.value for member in kind]
            hint = nearest(text, words)
            raise BadValue(
                f"{text[:40]!r} is none of {', '.join(words)}" + (f": {hint}" if hint else "")
            ) from None

    return parse


def _type(section: Section, has_start: bool) -> ServiceType:
    option = section.last("Type")
    if option is None:
        return ServiceType.SIMPLE if has_start else ServiceType.ONESHOT
    if option.value == "idle" or option.value in SYSTEMD_TYPES:
        return ServiceType.SIMPLE
    return section.read(option, choice(ServiceType), ServiceType.SIMPLE)


def _timeouts(section: Section, kind: ServiceType) -> tuple[float | None, float | None]:
    """Read the start and stop timeouts in the order of their lines; TimeoutSec= sets both."""
    start: float | None = None if kind is ServiceType.ONESHOT else 90.0
    stop: float | None = 90.0
    for option in section.options:
        if option.name not in ("TimeoutSec", "TimeoutStartSec", "TimeoutStopSec"):
            continue
        if option.name != "TimeoutStopSec":
            start = section.read(option, timespan.parse_timeout, start) if option.value else 90.0
        if option.name == "TimeoutStopSec" or (option.name == "TimeoutSec" and option.value):
            stop = section.read(option, timespan.parse_timeout, stop) if option.value else 90.0
    return start, stop


def _limits(section: Section) -> tuple[tuple[str, Limit], ...]:
    found = []
    for key in LIMIT_KEYS:
        name = key.removeprefix("Limit")
        limit = section.get(key, partial(quantities.limit, name), None)
        if limit is not None:
            found.append((name, limit))
    return tuple(found)


def _limit(
    unit: Section,
    service: Section,
    names: tuple[str, ...],
    parse: Callable[[str], V],
    default: V,
) -> V:
    """Read a start limit from the section that names it last."""
    found: tuple[Option, Section] | None = None
    for section in (unit, service):
        option = section.last(*names)
        if option is not None and (found is None or option.line > found[0].line):
            found = (option, section)
    return default if found is None else found[1].read(found[0], parse, default)


def _interval(text: str) -> float:
    span = timespan.parse(text)
    return _FOREVER_S if span is None else span


def _exit_status(section: Section, name: str) -> ExitStatus:
    codes: list[int] = []
    signals: list[str] = []
    for option in section.listed(name):
        words = section.words(option)
        try:
            status = quantities.exit_status(words)
        except BadValue as error:
            section.problems.error(option.line, f"{name}=: {error}")
            continue
        codes += status.codes
        signals += status.signals
    return ExitStatus(codes=tuple(dict.fromkeys(codes)), signals=tuple(dict.fromkeys(signals)))


def _directory(text: str) -> str:
    text = text.removeprefix("-")
    return text if text == "~" else absolute(text)


def _notify_access(text: str) -> bool:
    if text not in ("none", "main", "exec", "all"):
        raise BadValue(f"{text[:40]!r} is none of none, main, exec, all")
    return text in ("exec", "all")


def _line_of(section: Section) -> int:
    return section.options[0].line if section.options else 0
