"""`Check=` and its timings, and `OnFailure=`, in `[X-Fleet]`.

A check asks the copy itself: the host of a URL is left out, or is `localhost`. What may be said:

    Check=http://:8080/healthz    Check=https://:8443/    Check=tcp://:5432    Check=exec:/bin/pg_isready -q
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from unitfleet import timespan, xfleet
from unitfleet.names import UnitName
from unitfleet.problems import BadValue, Problems
from unitfleet.quoting import UnbalancedQuote, split_words
from unitfleet.spec import CheckKind, CheckSpec, ContainerSpec, OnFailure, ServiceSpec, ServiceType
from unitfleet.unitfile import XFLEET, Option

T = TypeVar("T")
D = TypeVar("D")

KEYS = frozenset("Check CheckInterval CheckTimeout CheckRetries CheckStartPeriod OnFailure".split())

FORMS = "http://:PORT/PATH, https://:PORT/PATH, tcp://:PORT or exec:COMMAND"
MOST_RETRIES = 100
LONGEST_S = 24 * 3600.0

_OWN = ("", "localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_HEALTH = ("HealthCmd", "HealthInterval", "HealthTimeout", "HealthRetries", "HealthStartPeriod")


class _Keys:
    """Our keys of one unit's `[X-Fleet]`: the last assignment counts, an empty one brings the default back.

    Specifiers are fleet's, as everywhere in the section: `%n %N %p %i`, so that `%20` in a URL stays.
    """

    def __init__(self, unit: UnitName, options: Iterable[Option], problems: Problems) -> None:
        self.options = tuple(options)
        self.problems = problems
        self._unit = unit

    def last(self, key: str) -> Option | None:
        found = [option for option in self.options if option.section == XFLEET and option.name == key]
        return found[-1] if found and found[-1].value else None

    def get(self, key: str, parse: Callable[[str], T], default: D) -> T | D:
        option = self.last(key)
        if option is None:
            return default
        try:
            return parse(xfleet.expand(option.value, self._unit))
        except BadValue as error:
            self.problems.error(option.line, f"{key}=: {error}")
            return default


def read(
    unit: UnitName,
    options: Iterable[Option],
    service: ServiceSpec,
    container: ContainerSpec | None,
    problems: Problems,
) -> CheckSpec | None:
    """Read a unit's check; what is wrong with it is added to `problems`. None when it has none."""
    keys = _Keys(unit, options, problems)
    option = keys.last("Check")
    if option is None:
        for other in map(keys.last, sorted(KEYS - {"Check", "OnFailure"})):
            if other is not None:
                message = f"{other.name}= without Check= checks nothing"
                problems.error(other.line, message, f"say what to ask: Check={FORMS}")
        return None
    asked = keys.get("Check", parse, None)
    usual = CheckSpec(kind=CheckKind.TCP, target="")
    interval_s = keys.get("CheckInterval", _span, usual.interval_s)
    timeout_s = keys.get("CheckTimeout", _span, min(usual.timeout_s, interval_s))
    if (said := keys.last("CheckTimeout")) is not None and timeout_s >= interval_s:
        problems.warn(
            said.line,
            f"CheckTimeout= of {timeout_s:g} s is not less than CheckInterval= of {interval_s:g} s: a check that "
            "hangs puts off the next one",
            "make the timeout shorter than the interval",
        )
    retries = keys.get("CheckRetries", _retries, usual.retries)
    start_period_s = keys.get("CheckStartPeriod", _period, usual.start_period_s)
    if asked is None:
        return None
    _refuse_what_does_not_go_together(option, asked, keys.options, service, container, problems)
    return msgspec.structs.replace(
        asked, interval_s=interval_s, timeout_s=timeout_s, retries=retries, start_period_s=start_period_s
    )


def on_failure(unit: UnitName, options: Iterable[Option], problems: Problems) -> OnFailure:
    """Read `OnFailure=` of `[X-Fleet]` (systemd's own, in `[Unit]`, is another key)."""
    return _Keys(unit, options, problems).get("OnFailure", _on_failure, OnFailure.RESTART)


def parse(text: str) -> CheckSpec:
    """Read the value of `Check=`; raises `BadValue` with the right form."""
    if text.startswith("exec:"):
        return _exec(text.removeprefix("exec:").strip())
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise BadValue(f"{text[:60]!r} is no URL ({error}): write {FORMS}") from None
    if url.scheme not in ("http", "https", "tcp") or f"{url.scheme}://" != text[: len(url.scheme) + 3].lower():
        raise BadValue(f"{text[:60]!r} is no check: write {FORMS}")
    if url.username is not None or any(char.isspace() for char in text):
        raise BadValue(f"{text[:60]!r} is no check: no user, password or blank goes into it; write {FORMS}")
    if host not in _OWN:
        raise BadValue(
            f"{host[:60]!r} is another host: a check asks the copy itself, write {url.scheme}://:{port or 'PORT'}"
            f"{url.path}"
        )
    return _of_url(url, port)


def _of_url(url: SplitResult, port: int | None) -> CheckSpec:
    port = _PORTS.get(url.scheme, 0) if port is None else port
    if not port:
        raise BadValue(f"{url.scheme}:// needs a port from 1 to 65535: write {url.scheme}://:PORT")
    if url.scheme == "tcp":
        if url.path not in ("", "/") or url.query:
            raise BadValue("tcp:// asks a port and no path: write tcp://:PORT")
        return CheckSpec(kind=CheckKind.TCP, target=f"localhost:{port}")
    query = f"?{url.query}" if url.query else ""
    return CheckSpec(kind=CheckKind.HTTP, target=f"{url.scheme}://localhost:{port}{url.path or '/'}{query}")


def _exec(text: str) -> CheckSpec:
    try:
        words = tuple(split_words(text))
    except UnbalancedQuote as error:
        raise BadValue(str(error)) from None
    if not words:
        raise BadValue("exec: names no command: write exec:COMMAND, as in exec:/bin/pg_isready -q")
    return CheckSpec(kind=CheckKind.EXEC, target=text, words=words)


def _refuse_what_does_not_go_together(
    option: Option,
    check: CheckSpec,
    options: Iterable[Option],
    service: ServiceSpec,
    container: ContainerSpec | None,
    problems: Problems,
) -> None:
    if service.type is ServiceType.ONESHOT:
        problems.error(
            option.line,
            "Check= does not go with Type=oneshot: what ends by itself is judged by its exit code",
            "leave Check= out",
        )
    if container is None:
        return
    other = next((one for one in options if _asks_itself(one)), None)
    if other is not None:
        problems.error(
            option.line,
            f"Check= does not go with {other.name}= (line {other.line}): two checks may contradict each other",
            f"leave one of them out; Check=exec:COMMAND is what {_HEALTH[0]}= would run",
        )
    if container.notify_healthy:
        problems.error(
            option.line,
            "Check= does not go with Notify=healthy, which waits for the container's own health check",
            "leave one of them out",
        )
    if check.kind is not CheckKind.EXEC and container.networks == ("none",):
        problems.error(
            option.line,
            f"Check={check.kind} can't reach a container with Network=none",
            "ask from inside: Check=exec:COMMAND",
        )


def _asks_itself(option: Option) -> bool:
    """Whether a key gives the container a health check of its own (`HealthCmd=none` takes the image's away)."""
    if option.section != "Container" or option.name not in _HEALTH:
        return False
    return bool(option.value) and (option.name, option.value) != ("HealthCmd", "none")


def _bounded(least: float, what: str) -> Callable[[str], float]:
    def read_span(text: str) -> float:
        span = timespan.parse_finite(text)
        if not least <= span <= LONGEST_S:
            raise BadValue(f"{text[:40]!r} is out of bounds: {what} to 24h, as in 10s")
        return span

    return read_span


_span = _bounded(0.1, "100ms")
_period = _bounded(0.0, "0")


def _retries(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_RETRIES):
        raise BadValue(f"{text[:40]!r} is no number of failures in a row from 1 to {MOST_RETRIES}, as in 3")
    return int(text)


def _on_failure(text: str) -> OnFailure:
    try:
        return OnFailure(text)
    except ValueError:
        raise BadValue(
            f"{text[:40]!r} is none of restart, keep: keep leaves a copy that failed for good as it was "
            "(systemd's OnFailure=UNIT belongs in [Unit])"
        ) from None
