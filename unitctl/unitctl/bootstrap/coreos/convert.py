"""A CoreOS cloud-config becomes our user-data; what has no form is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from unitctl.bootstrap import hostplan
from unitctl.bootstrap.cloudinit_keys import KEYS
from unitctl.bootstrap.coreos.cluster import Cluster, read_etcd, read_fleet
from unitctl.bootstrap.coreos.files import NO_PASSWORD, read_files, read_keys, read_users
from unitctl.bootstrap.coreos.report import Keys, Report
from unitctl.bootstrap.coreos.source import load
from unitctl.bootstrap.coreos.units import START_SCRIPT, Units, read_units
from unitctl.bootstrap.hostplan import PRIVATE, PUBLIC, HostPlan, Role
from unitctl.bootstrap.render import host_files
from unitctl.bootstrap.scripts import FIRST_BOOT, Package
from unitctl.bootstrap.settings import Value
from unitctl.bootstrap.userdata import HostFile, UserData
from unitctl.bootstrap.yamltree import Mapping, plain

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_REBOOTS = "Unitfleet reboots no host"
_NO_FORM = {
    "update.reboot_strategy": _REBOOTS,
    "update": "the package manager of the image updates a host",
    "locksmith": _REBOOTS,
    "flannel": "there is no overlay network: containers use ports of their host",
    "oem": "it named an image of CoreOS",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What the operator adds: who has etcd, where the source can't say it any more, and the package."""

    members: tuple[str, ...] = ()
    srv: str = ""
    etcd: tuple[str, ...] = ()
    package: Package | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """The user-data, and what became of each key."""

    user_data: UserData
    report: Report


@dataclass(slots=True)
class _Parts:
    """What the source comes to."""

    cluster: Cluster
    units: Units
    files: list[HostFile]
    other: dict[str, Any]
    line: int = 0  # of coreos.etcd or coreos.fleet
    has_fleet: bool = False


def convert(raw: bytes, filename: str, choice: Choice) -> Converted:
    """Convert a cloud-config; raises `Failure` for what is none, or none that can be read."""
    report = Report()
    keys = Keys(load(raw, filename), "", report)
    parts = _Parts(Cluster(), Units(), [], {})
    _top(keys, parts)
    plan = _plan(parts, choice, report)
    return Converted(_user_data(parts, plan, choice, report), report)


def _top(keys: Keys, parts: _Parts) -> None:
    if "coreos" in keys:
        path, line = keys.place("coreos")
        node = keys.take("coreos")
        if isinstance(node, Mapping):
            _coreos(Keys(node, path, keys.report), parts)
        elif node is not None and plain(node) is not None:
            keys.report.drop(path, line, "a table is expected here")
    for name, read in (("write_files", read_files), ("users", read_users), ("ssh_authorized_keys", read_keys)):
        if name not in keys:
            continue
        path, line = keys.place(name)
        node = keys.take(name)
        assert node is not None
        found: list[Any] = read(node, path, line, keys.report)
        if name == "write_files":
            parts.files += found
        elif found:
            parts.other[name] = found
            if name == "ssh_authorized_keys":
                keys.report.change(path, line, "they open the image's own user: there is no user core")
    _host(keys, parts)
    for name in list(keys.rest()):
        keys.drop(name, f"CoreOS ignored it{'; cloud-init would not: add it by hand' if name in KEYS else ''}")


def _host(keys: Keys, parts: _Parts) -> None:
    if "hostname" in keys:
        path, line = keys.place("hostname")
        name = keys.text("hostname")
        if name and _HOSTNAME.fullmatch(name):
            parts.other["hostname"] = name
        elif name:
            keys.report.drop(path, line, f"{name!r} is no host name: was a template never filled in?")
    for name in ("manage_etc_hosts", "manage_resolv_conf", "resolv_conf"):
        node = keys.take(name)
        if node is not None:
            value = plain(node)
            parts.other[name] = {"on": True, "yes": True, "off": False, "no": False}.get(str(value), value)


def _coreos(keys: Keys, parts: _Parts) -> None:
    for name in ("etcd", "etcd2", "fleet"):
        if name not in keys:
            continue
        path, line = keys.place(name)
        node = keys.take(name)
        parts.line = parts.line or line
        section = Keys(node if isinstance(node, Mapping) else Mapping(line, {}, {}), path, keys.report)
        if not isinstance(node, Mapping) and node is not None and plain(node) is not None:
            keys.report.drop(path, line, "a table is expected here")
        if name == "fleet":
            parts.has_fleet = True
            read_fleet(section, parts.cluster)
        else:
            read_etcd(section, parts.cluster)
    if "units" in keys:
        path, line = keys.place("units")
        node = keys.take("units")
        if node is not None:
            parts.units = read_units(node, path, line, keys.report)
    for name in list(keys.rest()):
        _without_form(name, keys)


def _without_form(name: str, keys: Keys) -> None:
    path, line = keys.place(name)
    node = keys.take(name)
    if name not in _NO_FORM:
        keys.report.drop(path, line, "CoreOS knew no such key")
    elif isinstance(node, Mapping) and node.entries:
        section = Keys(node, path, keys.report)
        for key in list(section.rest()):
            section.drop(key, _NO_FORM.get(f"{name}.{key}", _NO_FORM[name]))
    else:
        keys.report.drop(path, line, _NO_FORM[name])


def _plan(parts: _Parts, choice: Choice, report: Report) -> HostPlan | None:
    """What the host is to be; None when the source never spoke of fleet or etcd."""
    cluster, units = parts.cluster, parts.units
    if not (parts.has_fleet or cluster.has_etcd or units.fleet or units.etcd):
        return None
    alone = cluster.has_etcd and not (cluster.by_discovery or cluster.is_proxy or cluster.servers)
    members = choice.members or tuple(cluster.members) or ((PRIVATE,) if alone and not cluster.srv else ())
    srv = choice.srv or ("" if members else cluster.srv)
    endpoints = choice.etcd or (tuple(f"{host}:2379" for host in members) if cluster.is_proxy else ())
    endpoints = endpoints or (() if members or srv else tuple(cluster.servers))
    agent: dict[str, Value] = dict(cluster.agent)
    if not endpoints and (members or srv):
        return HostPlan(Role.CLUSTER, () if choice.srv else members, srv, agent=agent, etcd=cluster.etcd)
    if endpoints:
        agent["etcd"] = endpoints
    else:
        report.drop(
            "coreos.etcd",
            parts.line,
            "nothing names the members of etcd: the agent will ask 127.0.0.1; give --members, --srv or --etcd",
        )
    for name in cluster.etcd:
        report.drop(f"coreos.etcd.{name}", parts.line, "this host has no etcd")
    report.change("coreos.fleet", parts.line, "this host is an agent; masters are others: render --role master")
    return HostPlan(Role.AGENT, agent=agent)


def _user_data(parts: _Parts, plan: HostPlan | None, choice: Choice, report: Report) -> UserData:
    files = [*parts.files, *parts.units.files]
    commands: list[Sequence[str]] = []
    marked = tuple(file.path for file in files if PRIVATE in file.content or PUBLIC in file.content)
    environment = any(re.search(r"\bCOREOS_(PRIVATE|PUBLIC)_IPV4\b", file.content) for file in files)
    if plan is None and (marked or environment):
        plan = HostPlan(Role.NONE)
    if plan is not None:
        plan = hostplan.checked(replace(plan, fill_in=marked, coreos_environment=environment))
        ours, _ = host_files(plan, choice.package)
        files += ours
        commands.append(["sh", FIRST_BOOT])
        if marked:
            report.change(
                "$private_ipv4, $public_ipv4",
                0,
                f"unitctl bootstrap apply fills it in at boot: {', '.join(marked)}",
            )
    script = parts.units.script()
    if script is not None:
        files.append(script)
        commands.append(["sh", START_SCRIPT, "first"])
    other = dict(parts.other)
    _add_core(files, other, report)
    docker = parts.units.docker or parts.has_fleet or parts.units.fleet
    return UserData(
        about=["Converted from a cloud-config of CoreOS by unitctl bootstrap convert."],
        other=other,
        packages=["docker.io"] if docker else [],
        files=files,
        commands=commands,
    )


def _add_core(files: list[HostFile], other: dict[str, Any], report: Report) -> None:
    """Make CoreOS's user where files or units are his; cloud-init's own default user stays beside those named."""
    users: list[Any] = other.get("users", [])
    his = any(
        file.owner.partition(":")[0] == "core"
        or file.path.startswith("/home/core/")
        or "User=core" in file.content
        for file in files
    )
    if his and not any(user["name"] == "core" for user in users):
        users = [
            *users,
            {"name": "core", "groups": ["sudo"], "shell": "/bin/bash", "sudo": NO_PASSWORD},
        ]
        report.change("users", 0, "user core is made: files or units are his")
    if users:
        other["users"] = ["default", *users]
