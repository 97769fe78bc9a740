"""The other kinds of values in systemd's files: booleans, numbers, sizes, signals, exit statuses, limits."""

from __future__ import annotations

import re
from collections.abc import Iterable

from unitfleet import timespan
from unitfleet.problems import BadValue, nearest
from unitfleet.spec import ExitStatus, Limit

_TRUE = frozenset(("1", "yes", "y", "true", "t", "on"))
_FALSE = frozenset(("0", "no", "n", "false", "f", "off"))

_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([EPTGMKB]?)")
_POWERS = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}

# Linux, as on every architecture that Python wheels are made for (MIPS and SPARC differ).
SIGNALS = {
    f"SIG{name}": number
    for number, name in enumerate(
        (
            "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP "
            "TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
        ).split(),
        start=1,
    )
}
_ALIASES = {"SIGIOT": 6, "SIGPOLL": 29, "SIGCLD": 17}
_RTMIN, _RTMAX = 34, 64
_REALTIME = re.compile(r"SIGRT(MIN|MAX)([+-][0-9]{1,2})?")

# exit-status.c: C library, LSB, BSD and systemd's own names that stand in unit files.
EXIT_NAMES = {"SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4}
EXIT_NAMES |= {"NOTINSTALLED": 5, "NOTCONFIGURED": 6, "NOTRUNNING": 7}
for _offset, _name in enumerate(
    (
        "USAGE DATAERR NOINPUT NOUSER NOHOST UNAVAILABLE SOFTWARE OSERR OSFILE CANTCREAT IOERR TEMPFAIL "
        "PROTOCOL NOPERM CONFIG"
    ).split()
):
    EXIT_NAMES[_name] = 64 + _offset

_LIMIT_UNITS = {
    **dict.fromkeys(("FSIZE", "DATA", "STACK", "CORE", "RSS", "AS", "MEMLOCK", "MSGQUEUE"), "bytes"),
    **dict.fromkeys(("NOFILE", "NPROC", "LOCKS", "SIGPENDING", "RTPRIO", "NICE"), "count"),
    "CPU": "seconds",
    "RTTIME": "microseconds",
}
LIMITS = frozenset(_LIMIT_UNITS)


def boolean(text: str) -> bool:
    """Read a boolean; raises `BadValue`."""
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise BadValue(f"{text[:40]!r} is no boolean: write yes or no")


def whole(text: str, low: int, high: int) -> int:
    """Read a whole number from `low` to `high`; raises `BadValue`."""
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text, re.ASCII) and low <= int(text) <= high:
        return int(text)
    raise BadValue(f"{text[:40]!r} is no whole number from {low} to {high}")


def size(text: str) -> int:
    """Read a size in bytes: K, M, G … to the base of 1024; raises `BadValue`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadValue(f"{text[:40]!r} is no size: write bytes, or 64K, 512M, 1.5G")
    whole_part, _, fraction = match[1].partition(".")
    unit: int = 1024 ** _POWERS[match[2]]
    value = int(whole_part) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
    if value >= 2**63:
        raise BadValue(f"{text[:40]!r} is too large a size")
    return value


def signal_name(text: str) -> str:
    """Return the canonical name of a signal given as `SIGTERM`, `TERM` or `15`; raises `BadValue`."""
    number = signal_number(text)
    for name, value in SIGNALS.items():
        if value == number:
            return name
    return f"SIGRTMIN+{number - _RTMIN}" if number > _RTMIN else "SIGRTMIN"


def signal_number(text: str) -> int:
    """Return the number of a signal given as `SIGTERM`, `TERM`, `RTMIN+3` or `15`; raises `BadValue`."""
    if text.isascii() and text.isdigit() and len(text) <= 3:
        number = int(text)
        if number in SIGNALS.values() or _RTMIN <= number <= _RTMAX:
            return number
        raise BadValue(f"{text!r} is no signal")
    word = text.upper()
    word = word if word.startswith("SIG") else f"SIG{word}"
    found = SIGNALS.get(word) or _ALIASES.get(word)
    if found is not None:
        return found
    match = _REALTIME.fullmatch(word)
    if match is not None:
        number = (_RTMIN if match[1] == "MIN" else _RTMAX) + int(match[2] or 0)
        if _RTMIN <= number <= _RTMAX:
            return number
    raise BadValue(f"{text[:40]!r} is no signal" + _because(nearest(word, SIGNALS)))


def exit_status(words: Iterable[str]) -> ExitStatus:
    """Read a set of exit codes, their names, and signals; raises `BadValue` at the first that is neither."""
    codes: list[int] = []
    signals: list[str] = []
    for word in words:
        if word.isascii() and word.isdigit():
            codes.append(whole(word, 0, 255))
        elif word in EXIT_NAMES:
            codes.append(EXIT_NAMES[word])
        else:
            try:
                signals.append(signal_name(word))
            except BadValue as error:
                raise BadValue(
                    f"{word[:40]!r} is neither an exit code (0 to 255), its name, nor a signal"
                ) from error
    return ExitStatus(codes=tuple(dict.fromkeys(codes)), signals=tuple(dict.fromkeys(signals)))


def limit(name: str, text: str) -> Limit:
    """Read `soft:hard`, or one value for both, of LimitNAME= in the units of setrlimit(2); raises `BadValue`."""
    soft, colon, hard = text.partition(":")
    low = _limit_value(name, soft.strip())
    high = _limit_value(name, hard.strip()) if colon else low
    if high is not None and (low is None or low > high):
        raise BadValue(f"{text[:40]!r} has a soft limit above the hard one")
    return Limit(soft=low, hard=high)


def _limit_value(name: str, text: str) -> int | None:
    if text == "infinity":
        return None
    match _LIMIT_UNITS[name]:
        case "bytes":
            return size(text)
        case "seconds":
            span = timespan.parse(text)
            return None if span is None else -(-int(span * 1e6) // 10**6)
        case "microseconds":
            span = timespan.parse(text, default_unit_s=1e-6)
            return None if span is None else round(span * 1e6)
    if name == "NICE" and text[:1] in ("+", "-"):
        return 20 - whole(text, -20, 19)  # setrlimit's ceiling counts from 1 (nice 19) to 40 (nice -20)
    return whole(text, 0, 2**63 - 1)


def _because(hint: str) -> str:
    return f": {hint}" if hint else ""
