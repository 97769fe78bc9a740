"""Our user-data: from what an operator wants of a host to the text that cloud-init takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unitctl.bootstrap import hostplan, scripts
from unitctl.bootstrap.hostplan import HostPlan, Role
from unitctl.bootstrap.scripts import Package
from unitctl.bootstrap.settings import AGENT, DAEMONS, MASTER, Value
from unitctl.bootstrap.userdata import HostFile, UserData
from unitfleet.errors import InvalidConfig

AGENT_FILE, MASTER_FILE = "/etc/unitfleet/agent.toml", "/etc/unitfleet/master.toml"
AGENT_SERVICE, MASTER_SERVICE = "unit-agent.service", "unit-master.service"
FEW_PATIENT = 7
"""Members of etcd beyond which each write waits for more hosts than it is worth."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `unitctl bootstrap render` was told."""

    plan: HostPlan
    package: Package | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """User-data, and what its reader should know."""

    user_data: UserData
    notes: Sequence[str] = field(default_factory=tuple)


def read_setting(text: str) -> tuple[str, str, Value]:
    """Read `agent.key=value` of `--set`; raises `InvalidConfig`."""
    name, equals, value = text.partition("=")
    daemon, dot, key = name.strip().partition(".")
    if not equals or not dot or daemon not in (*DAEMONS, "etcd"):
        raise InvalidConfig(
            f"cannot use --set {text}: it is not agent.key=value, master.key=value or etcd.key=value",
            hint="as in --set agent.log-max=4G",
        )
    key = key.replace("_", "-")
    if daemon == "etcd":
        return daemon, key, value.strip()
    return daemon, key, DAEMONS[daemon].read(key, value.strip())


def render(wishes: Wishes) -> Rendered:
    """Make the user-data; raises `InvalidConfig` for settings that don't go together."""
    plan = hostplan.checked(wishes.plan)
    AGENT.agree(plan.agent)
    MASTER.agree(plan.master)
    files, services = host_files(plan, wishes.package)
    about = [f"Unitfleet: {_ABOUT[plan.role]}; made by unitctl bootstrap render."]
    user_data = UserData(about=about, files=files, commands=[["sh", scripts.FIRST_BOOT]])
    return Rendered(user_data, tuple(_notes(wishes, services)))


def host_files(plan: HostPlan, package: Package | None) -> tuple[list[HostFile], Sequence[str]]:
    """The files of a plan, and the services that start with no further thought; none when the host must think."""
    files, services = [], []
    if plan.needs_host:
        files.append(HostFile(hostplan.PATH, plan.write()))
        files.append(HostFile(scripts.EACH_BOOT, scripts.each_boot(), "0755"))
    elif plan.role is Role.MASTER:
        files.append(HostFile(MASTER_FILE, MASTER.write(plan.master)))
        services.append(MASTER_SERVICE)
    else:
        files.append(HostFile(AGENT_FILE, AGENT.write(plan.agent)))
        services.append(AGENT_SERVICE)
    files.append(HostFile(scripts.FIRST_BOOT, scripts.first_boot(package, services), "0755"))
    return files, services


_ABOUT = {
    Role.AGENT: "this host runs units",
    Role.MASTER: "this host serves the API",
    Role.CLUSTER: "the same text for every host; those on the list have etcd and a master, all run units",
}


def _notes(wishes: Wishes, services: Sequence[str]) -> list[str]:
    plan, notes = wishes.plan, []
    if wishes.package is None:
        notes.append("no --package: unitfleet must be in the image")
    elif wishes.package.place.startswith("http:") and not wishes.package.sha256:
        notes.append("the package comes by plain http and unchecked: write URL#sha256=HEX")
    if plan.role is Role.CLUSTER and plan.members:
        count = len(plan.members)
        if count == 1:
            notes.append("one member of etcd: when its host is gone so is the cluster")
        elif count % 2 == 0:
            notes.append(f"{count} members of etcd bear no more losses than {count - 1}: take an odd number")
        elif count > FEW_PATIENT:
            notes.append(f"{count} members of etcd make each write slow: 3 or 5 are usual")
    return notes
