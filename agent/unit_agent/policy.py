"""The host's own policy: its file, and the agent's check of a unit before it makes a copy (docs/policy.md).

The leader judges by the same words (`unitfleet.policy`), but the cluster can't be trusted with it: here is asked
again, with every symbolic link followed and every account looked up.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import pwd
import re
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from unit_agent.driver import Order
from unitfleet.errors import DriverUnavailable, InvalidConfig
from unitfleet.policy import (
    ANY,
    DOCKER_SOCKET,
    Account,
    Demands,
    Policy,
    Processes,
    device_allowed,
    exceeds,
    holds,
    path_allowed,
    plain,
)

DEFAULT = "/etc/unitfleet/policy.toml"

LOOK_S = 10.0
"""A disk that has not told by then where a path leads is as good as away."""

_LATER = ("privileged", "host-pid", "host-ipc", "host-userns")


def read(path: str, *, root: bool) -> Policy | None:
    """Return what the file says; None when `path` is "" and the default is not there.

    `root`: this agent runs as root; where it does not, no process of a unit can. Raises `InvalidConfig`.
    """
    file = path or DEFAULT
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if not path:
            return None
        raise InvalidConfig(
            f"cannot read {file}: no such file", hint="--policy names the host's policy"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise InvalidConfig(
            f"cannot read {file}: {why}", hint="it says what units may ask of this host"
        ) from error
    policy = parse(text, file)
    if policy.processes is Processes.NOT_ROOT and not root:
        return msgspec.structs.replace(policy, processes=Processes.ANY)
    return policy


def parse(text: str, file: str) -> Policy:
    """Read a policy; raises `InvalidConfig` with file, line and the nearest right word."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        at = f"{file}:{line[1]}" if line else file
        raise InvalidConfig(f"cannot read {at}: {error}", hint='lines are like: mounts = ["/srv"]') from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        at = f"{file}:{_line_of(key, text)}"
        if key in _LATER:
            hint = "leave it out"
            raise InvalidConfig(f"cannot use {at}: {key}: no unit can ask for that in this version", hint=hint)
        if key not in _READERS:
            near = difflib.get_close_matches(key.replace("_", "-"), _READERS, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(_READERS)}"
            raise InvalidConfig(f"cannot use {at}: unknown key {key}", hint=hint)
        try:
            values[key.replace("-", "_")] = _READERS[key](value)
        except ValueError as error:
            raise InvalidConfig(f"cannot use {at}: {key}: {error}", hint="docs/policy.md has every key") from error
    return Policy(**values)


def _line_of(key: str, text: str) -> int:
    found = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = enumerate(text.splitlines(), 1)
    return next((number for number, line in lines if found.match(line)), 1)


def _processes(value: object) -> Processes:
    if value in list(Processes):
        return Processes(str(value))
    raise ValueError(f"{value!r} is none of {', '.join(_quoted(Processes))}")


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _words(value: object, form: str) -> tuple[str, ...]:
    if value in (ANY, "none"):
        return (ANY,) if value == ANY else ()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f'{value!r} is none of "any", "none", or a list as {form}')
    if ANY in value or "none" in value:
        raise ValueError('"any" and "none" stand alone, not in a list')
    return tuple(value)


def _capabilities(value: object) -> tuple[str, ...]:
    words = [word.upper() for word in _words(value, '["CAP_NET_ADMIN"]')]
    if words in ([ANY.upper()], ["ALL"]):
        return (ANY,)
    for word in words:
        if not re.fullmatch("[A-Z][A-Z0-9_]{2,40}", word) or word == "ALL":
            raise ValueError(f'{word!r} is no capability: write "CAP_NET_ADMIN"')
    return tuple(word if word.startswith("CAP_") else f"CAP_{word}" for word in words)


def _paths(form: str) -> Callable[[object], tuple[str, ...]]:
    def read_paths(value: object) -> tuple[str, ...]:
        words = _words(value, form)
        for word in words:
            if words != (ANY,) and (not word.startswith("/") or ".." in word.split("/")):
                raise ValueError(f"{word!r} is no absolute path without '..'")
        return words if words == (ANY,) else tuple(plain(word) for word in words)

    return read_paths


def _quoted(words: type[StrEnum]) -> list[str]:
    return [f'"{word}"' for word in words]


_READERS: dict[str, Callable[[object], Any]] = {
    "processes": _processes,
    "host-network": _boolean,
    "capabilities": _capabilities,
    "devices": _paths('["/dev/dri/*"]'),
    "mounts": _paths('["/srv"]'),
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Asks the host, right before a copy is made or started, whether its unit may be here."""

    name: str  # of this machine
    policy: Policy | None
    docker_socket: str

    async def refusal(self, order: Order) -> str | None:
        """Return why the unit may not be started here, or None; raises `DriverUnavailable` when a disk hangs."""
        demands = order.spec.requirements.demands
        if demands == Demands():
            return None
        user = order.spec.service.user
        if not (user or demands.mounts or demands.files or demands.devices):
            why = refused(demands, self.policy, self.docker_socket)  # nothing is looked up, no disk can hang
            return f"policy: {self.name} {why}" if why else None
        try:
            async with asyncio.timeout(LOOK_S):
                why = await asyncio.to_thread(refused, demands, self.policy, self.docker_socket, user)
        except TimeoutError as error:
            raise DriverUnavailable(
                f"cannot start {order.placement.unit}: it could not be told in {LOOK_S:g} s where its mounts lead"
            ) from error
        return f"policy: {self.name} {why}" if why else None


def refused(demands: Demands, policy: Policy | None, docker_socket: str, user: str = "") -> str | None:
    """Return what `policy` does not allow of `demands`, once all its paths and accounts are looked up, or None."""
    if _is_root(user):
        demands = msgspec.structs.replace(demands, account=max(demands.account, Account.ROOT, key=_RISING.index))
    if why := exceeds(demands, policy):
        return why
    if any(_gives(source, socket) for source in demands.mounts for socket in (docker_socket, DOCKER_SOCKET)):
        return "never allows the Docker socket in a container"
    if policy is None:
        return None
    paths = (*demands.mounts, *demands.files)
    allowed = _with_ends(policy.mounts) if paths else ()
    for path in paths:
        if not path_allowed(end := _end(path), allowed):
            return f"allows paths below {', '.join(policy.mounts)}, not {path}, which leads to {end}"
    allowed = _with_ends(policy.devices) if demands.devices else ()
    for device in demands.devices:
        if not device_allowed(end := _end(device), allowed):
            return f"allows the devices {', '.join(policy.devices)}, not {device}, which leads to {end}"
    return None


_RISING = list(Account)


def _is_root(user: str) -> bool:
    """Tell whether an account of another name is root's."""
    with contextlib.suppress(KeyError, ValueError):
        return bool(user) and pwd.getpwnam(user).pw_uid == 0
    return False


def _gives(source: str, socket: str) -> bool:
    """Tell whether a mount of `source` would show `socket`, which may have another name there."""
    if holds(_end(source), _end(socket)):
        return True
    try:
        found = os.stat(source)
        return stat.S_ISSOCK(found.st_mode) and os.path.samestat(found, os.stat(socket))
    except OSError:
        return False


def _with_ends(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the policy's own paths, and where they lead on this host."""
    return paths if paths == (ANY,) else tuple(dict.fromkeys((*paths, *map(_end, paths))))


def _end(path: str) -> str:
    return plain(os.path.realpath(path))
