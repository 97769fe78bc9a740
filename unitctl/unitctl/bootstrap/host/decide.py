"""The decision: orders to all hosts and facts of this one become files, packages and services, with reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from unitctl.bootstrap.host import etcd, remembered
from unitctl.bootstrap.host.etcd import EtcdFacts
from unitctl.bootstrap.host.remembered import Remembered
from unitctl.bootstrap.hostplan import PRIVATE, PUBLIC, HostPlan, NameFrom, Role
from unitctl.bootstrap.render import AGENT_FILE, AGENT_SERVICE, MASTER_FILE, MASTER_SERVICE
from unitctl.bootstrap.settings import AGENT, MASTER, Value
from unitfleet.errors import InvalidName
from unitfleet.names import validate_machine_name

V = TypeVar("V")

ENVIRONMENT = "/etc/environment"
MASTERS_USER = "unitfleet"
"""Made by our package, so that no image can give it a file beforehand."""

_DROP_IN = re.compile(r"/etc/systemd/system/([^/]+)\.d/[^/]+\.conf")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a host knows of itself.

    `of_root`: which files of masters belong to root. `texts`: the files that are to be filled in, as they are now.
    """

    addresses: tuple[str, ...] = ()
    private: str = ""  # the address of its way to the world
    public: str = ""
    instance_id: str = ""
    ec2: Mapping[str, str] = field(default_factory=dict)
    members: tuple[str, ...] = ()  # as DNS has them, when the orders name SRV records
    etcd: EtcdFacts = field(default_factory=EtcdFacts)
    of_root: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Write:
    """A file as it is to be; `mode` 0 leaves that of a file that is there."""

    path: str
    content: str
    why: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Install:
    """A package that is missing."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is to run at each boot; it is started anew when one of `reads` has changed."""

    name: str
    why: str
    reads: tuple[str, ...] = ()
    enable: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, in this order. `held`: what is not done, and why an operator must look."""

    is_member: bool = False
    files: tuple[Write, ...] = ()
    packages: tuple[Install, ...] = ()
    handed: tuple[str, ...] = ()  # files of root that become the master's
    services: tuple[Service, ...] = ()
    warm: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    held: str = ""

    def told(self) -> list[str]:
        """Each step with its reason, for whoever wants to know before it is done."""
        return [
            *(f"write {file.path}: {file.why}" for file in self.files),
            *(f"install {package.name}: {package.why}" for package in self.packages),
            *(f"give {path} to {MASTERS_USER}: the master reads it" for path in self.handed),
            *(f"start {service.name}: {service.why}" for service in self.services),
            *(f"warm {image}: the user-data asks for it" for image in self.warm),
        ]


def own_place(plan: HostPlan, facts: Facts) -> tuple[tuple[str, ...], str]:
    """Return the members of etcd, and which of them this host is, "" for none."""
    if plan.role is not Role.CLUSTER:
        return (), ""
    named = plan.members or facts.members
    members = tuple(dict.fromkeys(facts.private if name == PRIVATE else name for name in named))
    return members, next((name for name in members if name and name in facts.addresses), "")


def decide(plan: HostPlan, facts: Facts) -> Decision:
    """Decide what this host is to be."""
    notes: list[str] = []
    files = _filled_in(plan, facts, notes)
    restarts = [
        Service(match[1], f"{file.path} was filled in", (file.path,), enable=False)
        for file in files
        if (match := _DROP_IN.fullmatch(file.path))
    ]
    if plan.role is Role.NONE:
        return Decision(files=tuple(files), services=tuple(restarts), notes=tuple(notes))
    members, own = own_place(plan, facts)
    endpoints = tuple(f"{etcd.bracketed(address)}:2379" for address in members)
    is_master = plan.role is Role.MASTER or bool(own)
    member = etcd.member(own, members, plan.etcd, facts.etcd) if own else None
    if member is not None and not member.held:
        files.append(Write(etcd.FILE, member.environment, f"{own} is on the list of members; {member.why}"))
    if facts.instance_id and (facts.ec2 or plan.name_from is NameFrom.INSTANCE_ID):
        kept = Remembered(facts.instance_id, facts.ec2)
        files.append(Write(remembered.PATH, kept.write(), "for a boot at which EC2 says nothing"))
    if is_master:
        settings = _settings(plan.master, facts, endpoints, _name(plan, facts, []))
        files.append(
            Write(MASTER_FILE, MASTER.write(settings), "masters run where etcd is" if own else "the role")
        )
    if plan.role is not Role.MASTER:
        settings = _settings(plan.agent, facts, endpoints, _name(plan, facts, notes))
        settings = _with_ec2(settings, facts) if plan.ec2_metadata else settings
        why = "every host runs units" if own or plan.role is Role.AGENT else _not_listed(facts)
        files.append(Write(AGENT_FILE, AGENT.write(settings), why))
    needs_etcd = own and member is not None and not member.held and not facts.etcd.installed
    return Decision(
        is_member=bool(own),
        files=tuple(files),
        packages=(Install("etcd-server", "a member of etcd has no etcd"),) if needs_etcd else (),
        handed=facts.of_root if is_master else (),
        services=(*restarts, *_services(plan, own, member)),
        warm=plan.warm if is_master and not (member and member.held) else (),
        notes=tuple(notes),
        held=member.held if member else "",
    )


def _services(plan: HostPlan, own: str, member: etcd.Member | None) -> Sequence[Service]:
    """What runs here. A member that is held starts no master: it would wait for an etcd that is not there."""
    found = []
    runs = member is not None and not member.held
    why = "masters run where etcd is" if own else "it is the host's role"
    if runs:
        found.append(Service(etcd.SERVICE, "this host is a member", (etcd.FILE,)))
    if runs or plan.role is Role.MASTER:
        found.append(Service(MASTER_SERVICE, why, (MASTER_FILE,)))
    if plan.role is not Role.MASTER:
        found.append(Service(AGENT_SERVICE, "every host runs units", (AGENT_FILE,)))
    return found


def _not_listed(facts: Facts) -> str:
    return f"none of its addresses ({', '.join(facts.addresses) or 'it has none'}) is on the list: an agent alone"


def _settings(base: Mapping[str, Value], facts: Facts, endpoints: tuple[str, ...], name: str) -> dict[str, Value]:
    """Settings with this host's own addresses, its name and etcd's endpoints."""
    found = {key: _replaced(value, facts) for key, value in base.items()}
    if endpoints:
        found["etcd"] = endpoints
    if name:
        found.setdefault("name", name)
    return found


def _name(plan: HostPlan, facts: Facts, notes: list[str]) -> str:
    """The machine's name, "" for the host name, which the daemons find by themselves."""
    match plan.name_from:
        case NameFrom.HOSTNAME:
            return ""
        case NameFrom.INSTANCE_ID:
            name, what = facts.instance_id, "instance id"
        case NameFrom.ADDRESS:
            name, what = re.sub(r"[.:]+", "-", facts.private), "address"
    try:
        validate_machine_name(name)
    except InvalidName:
        notes.append(f"the {what} {name!r} is no machine's name: the host name is taken")
        return ""
    return name


def _with_ec2(settings: Mapping[str, Value], facts: Facts) -> dict[str, Value]:
    """Add EC2's facts to the metadata; what the user-data says itself goes before them."""
    said = settings.get("metadata", {})
    assert isinstance(said, dict)
    merged = {**facts.ec2, **said}
    return {**settings, "metadata": merged} if merged else dict(settings)


def _filled_in(plan: HostPlan, facts: Facts, notes: list[str]) -> list[Write]:
    files = []
    if (plan.fill_in or plan.coreos_environment) and not facts.public:
        notes.append("this host knows no public address: its private one stands for it")
    for path in plan.fill_in:
        if path not in facts.texts:
            notes.append(f"{path} is not there: nothing to fill in")
            continue
        files.append(Write(path, _replaced(facts.texts[path], facts), "the host's addresses stand in it", mode=0))
    if plan.coreos_environment:
        now = next((file.content for file in files if file.path == ENVIRONMENT), facts.texts.get(ENVIRONMENT, ""))
        files = [file for file in files if file.path != ENVIRONMENT]
        files.append(Write(ENVIRONMENT, _environment(now, facts), "units of CoreOS read addresses there", mode=0))
    return files


def _environment(text: str, facts: Facts) -> str:
    """Have both of CoreOS's variables in /etc/environment, each once."""
    own = {"COREOS_PRIVATE_IPV4": facts.private, "COREOS_PUBLIC_IPV4": facts.public or facts.private}
    others = [line for line in text.splitlines() if line.partition("=")[0].strip() not in own]
    return "\n".join([*others, *(f"{name}={value}" for name, value in own.items())]) + "\n"


def _replaced(value: V, facts: Facts) -> V:
    if not isinstance(value, str):
        return value
    return value.replace(PRIVATE, facts.private).replace(PUBLIC, facts.public or facts.private)  # type: ignore[return-value]
