"""`LogFiles=` and `LogSink=` in `[X-Fleet]`: what is collected beside stdout and stderr, and where it is shipped.

`LogFiles=` takes globs (`*`, `?`, `[…]` within one name) of absolute paths where the unit runs: in its container,
or on the host for a `[Service]` unit. Platforms that can't write unit texts set the environment variable
`UNITFLEET_LOG_FILES` instead, comma-separated. `LogSink=` names sinks of the agent, which alone knows them.
"""

from __future__ import annotations

import re

from unitfleet.problems import BadValue
from unitfleet.section import Section, absolute
from unitfleet.spec import LogSpec, UnitSpec

KEYS = frozenset("LogFiles LogSink".split())
VARIABLE = "UNITFLEET_LOG_FILES"
MOST_GLOBS = 20

_SINK = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


def read(section: Section) -> LogSpec:
    """Read the keys of `[X-Fleet]`; both are lists of words, an empty assignment drops what was before it."""
    files = section.each_word("LogFiles", _glob)
    if len(files) > MOST_GLOBS:
        option = section.listed("LogFiles")[-1]
        section.problems.error(option.line, f"LogFiles= names {len(files)} globs", f"at most {MOST_GLOBS}")
    sinks = section.each_word("LogSink", _sink)
    return LogSpec(files=tuple(dict.fromkeys(files)), sinks=tuple(dict.fromkeys(sinks)))


def log_files(spec: UnitSpec) -> tuple[str, ...]:
    """Return the globs of a unit: those of its text, and those of the variable, of which bad ones are left out."""
    named = dict((*spec.service.environment, *(spec.container.environment if spec.container else ()))).get(
        VARIABLE
    )
    found = list(spec.logs.files)
    for word in (named or "").split(","):
        if word.strip():
            try:
                found.append(_glob(word.strip()))
            except BadValue:
                continue
    return tuple(dict.fromkeys(found))[:MOST_GLOBS]


def _glob(text: str) -> str:
    path = absolute(text)
    if path.endswith("/"):
        raise BadValue(f"{text[:60]!r} is a directory: name files, as in {path[:40]}*.log")
    if "**" in path:
        raise BadValue(f"{text[:60]!r}: ** is not known, * stands for one name: write /var/log/*/*.log")
    for word in ("/proc/", "/sys/", "/dev/"):
        if path.startswith(word) and not path.startswith("/dev/shm/"):
            raise BadValue(f"{text[:60]!r} is no log: nothing below {word} is read")
    return path


def _sink(text: str) -> str:
    if not _SINK.fullmatch(text):
        raise BadValue(
            f"{text[:40]!r} is no name of a sink: write small letters, digits and -, as in LogSink=loki"
        )
    return text
