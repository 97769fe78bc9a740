"""`/etc/unitfleet/bootstrap.toml`: what a host is told to make of itself, the same text on every host."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from unitctl.bootstrap.settings import DAEMONS, Value
from unitfleet.config import toml
from unitfleet.errors import InvalidConfig
from unitfleet.problems import BadValue, nearest
from unitfleet.quadlet import image_reference

PATH = "/etc/unitfleet/bootstrap.toml"
PRIVATE, PUBLIC = "UNITFLEET_PRIVATE_IPV4", "UNITFLEET_PUBLIC_IPV4"
"""Stand for the host's own addresses in settings and in the files of `fill-in`."""

ETCD = {
    "heartbeat-interval": "ETCD_HEARTBEAT_INTERVAL",
    "election-timeout": "ETCD_ELECTION_TIMEOUT",
    "snapshot-count": "ETCD_SNAPSHOT_COUNT",
    "max-snapshots": "ETCD_MAX_SNAPSHOTS",
    "max-wals": "ETCD_MAX_WALS",
    "quota-backend-bytes": "ETCD_QUOTA_BACKEND_BYTES",
    "initial-cluster-token": "ETCD_INITIAL_CLUSTER_TOKEN",
}
"""What etcd may be told besides its place in the cluster, and the variable that says it."""


MASTERS_FILES = (
    "cluster-key-file",
    "secrets-key-file",
    "token-file",
    "metrics-token-file",
    "join-file",
    "etcd-key",
)
"""Settings of masters that name a file which they read and others must not."""


class Role(StrEnum):
    """What a host is in its fleet."""

    AGENT = "agent"
    MASTER = "master"
    CLUSTER = "cluster"  # whoever is on the list is a member of etcd and a master; all are agents
    NONE = "none"  # no part of a fleet: files are filled in, nothing more


class NameFrom(StrEnum):
    """Where a machine's name comes from."""

    HOSTNAME = "hostname"
    INSTANCE_ID = "instance-id"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class HostPlan:
    """The orders to a host. `agent`, `master`: settings of the daemons; `etcd`: of etcd, by names of `ETCD`."""

    role: Role = Role.AGENT
    members: tuple[str, ...] = ()
    srv: str = ""
    name_from: NameFrom = NameFrom.HOSTNAME
    ec2_metadata: bool = False
    warm: tuple[str, ...] = ()
    fill_in: tuple[str, ...] = ()
    coreos_environment: bool = False
    agent: Mapping[str, Value] = field(default_factory=dict)
    master: Mapping[str, Value] = field(default_factory=dict)
    etcd: Mapping[str, Value] = field(default_factory=dict)

    @property
    def needs_addresses(self) -> bool:
        """Tell whether the host's own addresses stand in for words of ours, a public one among them."""
        settings = any(value in (PRIVATE, PUBLIC) for value in self.agent.values())
        return self.coreos_environment or bool(self.fill_in) or settings

    @property
    def masters_files(self) -> tuple[str, ...]:
        """Return the files that masters read and others must not."""
        named = (str(self.master.get(key, "")) for key in MASTERS_FILES)
        return tuple(dict.fromkeys(path for path in named if path))

    @property
    def needs_host(self) -> bool:
        """Tell whether only the host itself can know its settings, so that it must run `bootstrap apply`."""
        return (
            self.role in (Role.CLUSTER, Role.NONE)
            or self.name_from is not NameFrom.HOSTNAME
            or self.ec2_metadata
            or self.needs_addresses
            or bool(self.warm)
            or bool(self.masters_files)
        )

    def write(self) -> str:
        """Return it as TOML."""
        lines = [f"{name} = {toml(value)}\n" for name, value in self._said().items()]
        for table in ("agent", "master", "etcd"):
            if values := getattr(self, table):
                lines.append(f"\n[{table}]\n")
                lines += [f"{name} = {toml(value)}\n" for name, value in values.items()]
        return "".join(lines)

    def _said(self) -> dict[str, Any]:
        said = {
            "role": self.role.value,
            "members": self.members,
            "srv": self.srv,
            "name-from": "" if self.name_from is NameFrom.HOSTNAME else self.name_from.value,
            "ec2-metadata": self.ec2_metadata,
            "warm": self.warm,
            "fill-in": self.fill_in,
            "coreos-environment": self.coreos_environment,
        }
        return {name: value for name, value in said.items() if value}


def read(text: str, filename: str = PATH) -> HostPlan:
    """Read `bootstrap.toml`; raises `InvalidConfig` that names the key, and the line where TOML ends."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"cannot read {filename}: {error}", hint='lines are like: role = "agent"') from error
    return from_table(content, filename)


def from_table(content: Mapping[str, Any], filename: str = "") -> HostPlan:
    """Read the table of `bootstrap.toml`; raises `InvalidConfig`."""
    values: dict[str, Any] = {}
    place = f" in {filename}" if filename else ""
    for key, value in content.items():
        if key in DAEMONS:
            table = _a_table(key, value)
            values[key] = {name: DAEMONS[key].read(name, each) for name, each in table.items()}
            DAEMONS[key].agree(values[key])
        elif key == "etcd":
            values[key] = {name: _etcd(name, each) for name, each in _a_table(key, value).items()}
        elif key in _KEYS:
            try:
                values[key.replace("-", "_")] = _KEYS[key](value)
            except (BadValue, ValueError) as error:
                raise InvalidConfig(f"cannot use {key}{place}: {error}") from error
        else:
            known = (*_KEYS, *DAEMONS, "etcd")
            hint = nearest(key, known) or f"known keys: {', '.join(sorted(known))}"
            raise InvalidConfig(f"cannot use {key}{place}: no such key", hint=hint)
    return checked(HostPlan(**values))


def checked(plan: HostPlan) -> HostPlan:
    """Refuse what does not go together; raises `InvalidConfig`. Returns the plan."""
    cluster = plan.role is Role.CLUSTER
    if cluster and bool(plan.members) == bool(plan.srv):
        raise InvalidConfig(
            "cannot make a cluster: exactly one of members and srv says which hosts have etcd",
            hint="--members 10.0.0.1,10.0.0.2,10.0.0.3, or --srv _etcd-server._tcp.example.com",
        )
    if not cluster and (plan.members or plan.srv):
        raise InvalidConfig("cannot use members or srv: only the role cluster has them", hint="--role cluster")
    if cluster and (both := [name for name in ("agent", "master") if "etcd" in getattr(plan, name)]):
        raise InvalidConfig(f"cannot use {both[0]}.etcd: in the role cluster the members are etcd's endpoints")
    if plan.role is Role.AGENT and plan.warm:
        raise InvalidConfig(
            "cannot use warm in the role agent: it is for masters, who are told of images for all machines",
            hint="warm of the table agent names images for this host",
        )
    return plan


def _a_table(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidConfig(f"cannot use {key}: it is a table of settings")
    return value


def _etcd(name: str, value: object) -> str:
    if name not in ETCD:
        hint = nearest(name, ETCD) or f"settings: {', '.join(sorted(ETCD))}"
        raise InvalidConfig(f"cannot use etcd.{name}: bootstrap passes no such setting on", hint=hint)
    text = str(value)
    if not text.isprintable() or not text or any(char in "\"'$\\ " for char in text):
        raise InvalidConfig(f"cannot use etcd.{name}: {text!r} is no value of an environment file")
    return text


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValue(f"{value!r} is neither true nor false")
    return value


def _one_of(words: type[StrEnum]) -> Callable[[str], StrEnum]:
    def read(value: str) -> StrEnum:
        try:
            return words(value)
        except ValueError:
            raise BadValue(f"{value!r} is none of {', '.join(words)}") from None

    return read


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise BadValue(f"{value!r} is not a list of texts")
    return tuple(value)


def member(text: str) -> str:
    """Return the address of a member of etcd; raises `BadValue`."""
    if text == PRIVATE:
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadValue(f"{text!r} is no address: a host finds itself on the list by its own") from None


def _members(value: object) -> tuple[str, ...]:
    found = tuple(member(text) for text in _texts(value))
    if len(set(found)) < len(found):
        raise BadValue("an address is named twice")
    return found


def srv_name(text: object) -> str:
    """Return the name of SRV records; raises `BadValue`."""
    words = text.rstrip(".").split(".") if isinstance(text, str) else []
    if len(words) < 3 or not words[0].startswith("_") or not words[1].startswith("_") or not all(words):
        raise BadValue(f"{text!r} names no service, as _etcd-server._tcp.example.com does")
    return ".".join(words)


def _images(value: object) -> tuple[str, ...]:
    return tuple(image_reference(text) for text in _texts(value))


def _paths(value: object) -> tuple[str, ...]:
    found = _texts(value)
    for path in found:
        if not path.startswith("/") or "/../" in f"{path}/":
            raise BadValue(f"{path!r} is no absolute path")
    return found


_KEYS: dict[str, Callable[[Any], Any]] = {
    "role": _one_of(Role),
    "members": _members,
    "srv": srv_name,
    "name-from": _one_of(NameFrom),
    "ec2-metadata": _truth,
    "warm": _images,
    "fill-in": _paths,
    "coreos-environment": _truth,
}
