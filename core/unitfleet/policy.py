"""What a host lets units ask of it, and whether a unit asks for more. Pure: master and agent judge alike.

A `Policy` is the host's own (`/etc/unitfleet/policy.toml`, docs/policy.md), `Demands` are read off a unit's text
(`unitfleet.demands`). A policy says what is allowed: what it does not mention is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

ANY = "any"

DOCKER_SOCKET = "/run/docker.sock"
"""Whoever has it is root on the host: no policy can give it to a container."""

_ALIASES = (("/var/run", "/run"),)  # one place on every host that has an Engine


class Account(StrEnum):
    """As whom the processes of a `[Service]` unit run, in rising order."""

    NONE = "none"  # it has none: it is a container
    NOT_ROOT = "not-root"
    ROOT = "root"


class Processes(StrEnum):
    """What a policy says of `[Service]` units."""

    NONE = "none"
    NOT_ROOT = "not-root"
    ANY = "any"


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What units may ask of a host. Each default is the least.

    `capabilities`, `devices` (globs) and `mounts` (paths, with all below) hold `ANY` alone where all are allowed.
    """

    processes: Processes = Processes.NONE
    host_network: bool = False
    capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


OPEN = Policy(processes=Processes.ANY, host_network=True, capabilities=(ANY,), devices=(ANY,), mounts=(ANY,))
"""What holds on a host without a policy."""


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit asks of the host beyond a confined container.

    `mounts` are paths of the host that are shown to it, `files` those that are read for it (EnvironmentFile=).
    """

    account: Account = Account.NONE
    host_network: bool = False
    capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def exceeds(demands: Demands, policy: Policy | None) -> str | None:
    """Return what the policy allows instead of what the unit asks for, to follow the host's name; or None.

    None as a policy is a host without one: only the Docker socket is refused there.
    """
    if any(holds(source, DOCKER_SOCKET) for source in demands.mounts):
        return "never allows the Docker socket in a container"
    if policy is None:
        return None
    if why := _processes(demands.account, policy.processes):
        return why
    if demands.host_network and not policy.host_network:
        return "allows no host network"
    if policy.capabilities != (ANY,):
        more = sorted(set(demands.capabilities) - set(policy.capabilities))
        if more:
            return _only("capabilities", policy.capabilities, more[0])
    for device in demands.devices:
        if not device_allowed(device, policy.devices):
            return _only("devices", policy.devices, device)
    for path in (*demands.mounts, *demands.files):
        if not path_allowed(path, policy.mounts):
            kind = "mounts" if path in demands.mounts else "environment files"
            return (
                f"allows {kind} below {_words(policy.mounts)}, not {path}"
                if policy.mounts
                else (f"allows no {kind} of the host, so not {path}")
            )
    return None


def device_allowed(device: str, globs: tuple[str, ...]) -> bool:
    """Tell whether a device's path is matched; `*` does not reach into a directory."""
    return globs == (ANY,) or any(
        device.count("/") == glob.count("/") and fnmatchcase(device, glob) for glob in globs
    )


def path_allowed(path: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a path is one of `prefixes` or stands below it."""
    return prefixes == (ANY,) or any(holds(prefix, path) for prefix in prefixes)


def holds(directory: str, path: str) -> bool:
    """Tell whether `path` is `directory` or stands below it, by their words alone."""
    directory, path = plain(directory), plain(path)
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def plain(path: str) -> str:
    """Write an absolute path in one way: without doubled slashes and dots, `/run` for `/var/run`."""
    words = "/" + "/".join(word for word in path.split("/") if word not in ("", "."))
    for alias, meant in _ALIASES:
        if words == alias or words.startswith(alias + "/"):
            return meant + words.removeprefix(alias)
    return words


def _processes(account: Account, allowed: Processes) -> str | None:
    if account is Account.NONE or allowed is Processes.ANY:
        return None
    if allowed is Processes.NONE:
        return "allows containers only, no [Service] units"
    return "allows no processes as root (User= names another)" if account is Account.ROOT else None


def _only(what: str, allowed: tuple[str, ...], asked: str) -> str:
    return f"allows the {what} {_words(allowed)}, not {asked}" if allowed else f"allows no {what}, so not {asked}"


def _words(allowed: Iterable[str]) -> str:
    return ", ".join(allowed)
