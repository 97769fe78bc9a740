"""A member of etcd: its place in the cluster, as Debian's etcd reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitctl.bootstrap.hostplan import ETCD
from unitctl.bootstrap.settings import Value

FILE = "/etc/default/etcd"
SERVICE = "etcd.service"
DATA = "/var/lib/etcd/unitfleet"
"""Not Debian's own: the package starts a cluster of one in that as it is installed."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A member as a running cluster lists it; it has told its client URLs once it was started."""

    id: str
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EtcdFacts:
    """What stands on this host, and whom a running cluster lists; None: no other member answers."""

    installed: bool = False
    has_data: bool = False
    state: str = ""  # that the environment file names now
    listed: tuple[Listed, ...] | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """The environment of a member and why, or why it is not started."""

    environment: str = ""
    why: str = ""
    held: str = ""


def bracketed(address: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def name_of(address: str) -> str:
    """The name of a member; every host works it out alike."""
    return "etcd-" + address.replace(".", "-").replace(":", "-")


def member(own: str, members: Sequence[str], settings: Mapping[str, Value], facts: EtcdFacts) -> Member:
    """Decide how the member `own` starts, or why an operator must look first."""
    peer = f"http://{bracketed(own)}:2380"
    state, why = _state(own, peer, facts)
    if not state:
        return Member(held=why)
    client = f"http://{bracketed(own)}:2379"
    variables = {
        "ETCD_NAME": name_of(own),
        "ETCD_DATA_DIR": DATA,
        "ETCD_LISTEN_PEER_URLS": peer,
        "ETCD_LISTEN_CLIENT_URLS": f"{client},http://127.0.0.1:2379",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
        "ETCD_ADVERTISE_CLIENT_URLS": client,
        "ETCD_INITIAL_CLUSTER": ",".join(
            f"{name_of(address)}=http://{bracketed(address)}:2380" for address in members
        ),
        "ETCD_INITIAL_CLUSTER_STATE": state,
        "ETCD_INITIAL_CLUSTER_TOKEN": "unitfleet",
        **{ETCD[name]: value for name, value in settings.items()},
    }
    head = "# Written by unitctl bootstrap apply.\n"
    return Member(head + "".join(f'{name}="{value}"\n' for name, value in variables.items()), why)


def _state(own: str, peer: str, facts: EtcdFacts) -> tuple[str, str]:
    """Return new or existing and why, or "" and why it must not start.

    A member whose data is gone must never come back under its old id: it would vote twice. The cluster has to
    forget it first.
    """
    if facts.has_data:
        return facts.state or "new", "its data is here"
    if facts.listed is None:
        return "new", "no other member answers: the cluster begins"
    found = next((listed for listed in facts.listed if peer in listed.peer_urls), None)
    add = f"etcdctl member add {name_of(own)} --peer-urls={peer}"
    if found is None:
        return "", f"cannot start etcd: the cluster runs and does not list {own}; on another member: {add}"
    if found.client_urls:
        return "", (
            f"cannot start etcd: {own} was a member before and its data is gone; on another member: "
            f"etcdctl member remove {found.id}, then {add}"
        )
    return "existing", "the cluster runs and waits for it"
