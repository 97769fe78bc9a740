"""What stands in the files of user-data: our settings, and units."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

from unitctl.bootstrap import hostplan
from unitctl.bootstrap.settings import DAEMONS, Daemon, Value
from unitfleet import accept, names, systemd
from unitfleet.errors import InvalidConfig, InvalidName, InvalidUnit
from unitfleet.problems import Problems

OURS = "/etc/unitfleet/"
SETTINGS = {f"{OURS}{name}.toml": daemon for name, daemon in DAEMONS.items()}

_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")
_SYSTEMD = ("/etc/systemd/", "/run/systemd/", "/lib/systemd/", "/usr/lib/systemd/", "/usr/local/lib/systemd/")
_PROBLEM_LINE = re.compile(r":(\d+): ")


def judge(path: str, text: str, line: int, problems: Problems) -> None:
    """Add what is wrong with a file that begins on `line`; files of others are not looked at."""
    name = PurePosixPath(path).name
    if path == hostplan.PATH or path in SETTINGS:
        _settings(path, text, line, problems)
    elif names.fault(name) is None and not path.startswith(_SYSTEMD):
        why = refusal(name, text)
        if why and path.startswith(OURS):
            problems.error(line + _line(why), f"{path}: {why}")
        elif why:
            problems.warn(line + _line(why), f"{path}: unitctl submit would refuse it: {why}")


def refusal(name: str, text: str) -> str:
    """Why a unit of ours would be refused, "" for none; a unit without [X-Fleet] or [Container] is systemd's."""
    if not {"X-Fleet", "Container"} & {header for header, _ in systemd.sections(text)}:
        return ""
    try:
        accept.read(name, text)
    except InvalidUnit as error:
        return error.problems[0] if error.problems else error.message
    except InvalidName as error:
        return error.message
    return ""


def _settings(path: str, text: str, line: int, problems: Problems) -> None:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        offset = int(at[1]) - 1 if at and at[1] else max(0, text.count("\n") - 1)
        why = _AT_LINE.sub("", str(error))
        problems.error(line + offset, f"{path}: {why[:1].lower()}{why[1:]}", 'lines are like: name = "m1"')
        return
    if path == hostplan.PATH:
        _attempt(partial(hostplan.from_table, content), text, line, path, problems)
        return
    daemon, read = SETTINGS[path], dict[str, Value]()
    for key, value in content.items():
        _attempt(partial(_take, daemon, key.replace("_", "-"), value, read), text, line, path, problems)
    _attempt(partial(daemon.agree, read), text, line, path, problems)


def _take(daemon: Daemon, name: str, value: object, into: dict[str, Value]) -> None:
    into[name] = daemon.read(name, value)


def _attempt(act: Callable[[], object], text: str, line: int, path: str, problems: Problems) -> None:
    """Do one reading; what it refuses is said at the line of the key that it names."""
    try:
        act()
    except InvalidConfig as error:
        why = error.message.removeprefix("cannot use ")
        key = why.split(" ")[0].rstrip(":").rpartition(".")[2]
        found = re.search(rf"^\s*\"?{re.escape(key)}\"?\s*=", text.replace("_", "-"), re.MULTILINE)
        offset = text.count("\n", 0, found.end()) if found else 0
        problems.error(line + offset, f"{path}: {why}", error.hint or "")


def _line(why: str) -> int:
    match = _PROBLEM_LINE.search(why)
    return int(match[1]) - 1 if match else 0
