"""`coreos.fleet`, `coreos.etcd`, `coreos.etcd2`: who is in the cluster, and what its agents are told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from unitctl.bootstrap.coreos.report import Keys
from unitctl.bootstrap.hostplan import ETCD, PRIVATE, PUBLIC, member, srv_name
from unitctl.bootstrap.settings import Value, metadata_pair
from unitfleet.problems import BadValue

NO_TLS = "links of etcd are not encrypted in this version"
GONE = "the public discovery service is gone; name the members: --members ADDRESS,…"

_URL = re.compile(r"(?:https?://)?(\[[^\]]+\]|[^:/,\s]+)(?::(\d+))?/?")
_PORT = re.compile(r":(\d+)")
_LOCAL = ("127.0.0.1", "localhost", "0.0.0.0", "::1")

_FLEET = {
    "agent_ttl": "profile= of agents and masters says how soon a silent machine is lost",
    "engine_reconcile_interval": "a leader decides on each change, and on its own interval",
    "disable_engine": "what decides is a program of its own: leave unit-master out",
    "disable_watches": "agents and masters watch etcd, and read it anew on an interval",
    "etcd_key_prefix": "all keys stand under /unitfleet/v1",
    "etcd_request_timeout": "calls of etcd have bounds of their own",
    "token_limit": "lists have no pages",
    "authorized_keys_file": "unitctl needs no ssh",
    **dict.fromkeys(("etcd_cafile", "etcd_certfile", "etcd_keyfile", "etcd_username", "etcd_password"), NO_TLS),
}
_ETCD_TLS = (
    *("ca_file", "cert_file", "key_file", "trusted_ca_file", "client_cert_auth", "peer_ca_file", "peer_cert_file"),
    *("peer_key_file", "peer_trusted_ca_file", "peer_client_cert_auth"),
)
# A host finds these out by itself, of its own address.
_OWN = (
    *("name", "addr", "bind_addr", "peer_addr", "peer_bind_addr", "advertise_client_urls", "listen_client_urls"),
    *("listen_peer_urls", "initial_advertise_peer_urls", "initial_cluster_state"),
)
_ETCD = {
    "peers_file": "members are named in the user-data",
    "discovery_fallback": "there is no discovery service to fall back from",
    "discovery_proxy": "there is no discovery service to reach",
    "data_dir": "it is /var/lib/etcd/unitfleet",
    "cluster_active_size": "members are named one by one",
    "cluster_remove_delay": "members are named one by one",
    "cluster_sync_interval": "members are named one by one",
    **dict.fromkeys(_ETCD_TLS, NO_TLS),
}


@dataclass(slots=True)
class Cluster:
    """What the sections say together. `members` and `srv` name etcd's hosts, `servers` its endpoints."""

    members: list[str] = field(default_factory=list)
    srv: str = ""
    servers: list[str] = field(default_factory=list)
    is_proxy: bool = False
    has_etcd: bool = False
    by_discovery: bool = False
    agent: dict[str, Value] = field(default_factory=dict)
    etcd: dict[str, Value] = field(default_factory=dict)


def read_fleet(keys: Keys, into: Cluster) -> None:
    """Read `coreos.fleet`."""
    if "metadata" in keys:
        _metadata(keys, into)
    if "public_ip" in keys:
        path, line = keys.place("public_ip")
        address = keys.text("public_ip")
        if address == PRIVATE:
            keys.report.change(path, line, "an agent finds the host's own address by itself")
        elif address:
            into.agent["address"] = address
    if "etcd_servers" in keys:
        path, line = keys.place("etcd_servers")
        found = [_URL.fullmatch(word) for word in _words(keys, "etcd_servers")]
        into.servers = [f"{url[1]}:{url[2] or 2379}" for url in found if url and url[1] not in _LOCAL]
        if not into.servers:
            keys.report.change(path, line, "it names no member but this host: members come from coreos.etcd")
    if "verbosity" in keys:
        into.agent["log-level"] = "info" if keys.text("verbosity") in ("0", None) else "debug"
    for name, why in _FLEET.items():
        keys.drop(name, why)
    for name in keys.rest():
        keys.drop(name, "fleet had no such setting")


def read_etcd(keys: Keys, into: Cluster) -> None:
    """Read `coreos.etcd` or `coreos.etcd2`."""
    into.has_etcd = True
    for name in ("initial_cluster", "peers"):
        if name in keys:
            _members(keys, name, into)
    if "discovery" in keys:
        into.by_discovery = True
        keys.drop("discovery", GONE)
    if "discovery_srv" in keys:
        path, line = keys.place("discovery_srv")
        try:
            into.srv = srv_name(f"_etcd-server._tcp.{keys.text('discovery_srv')}")
        except BadValue as error:
            keys.report.drop(path, line, str(error))
    if "proxy" in keys:
        into.is_proxy = (keys.text("proxy") or "off").lower() in ("on", "true", "readonly", "yes")
    for name in _OWN:
        _own(keys, name)
    for name in list(keys.rest()):
        if name.replace("_", "-") in ETCD:
            into.etcd[name.replace("_", "-")] = keys.text(name) or ""
        else:
            keys.drop(name, _ETCD.get(name, "bootstrap passes no such setting of etcd on"))


def _own(keys: Keys, name: str) -> None:
    """Take what a host says of itself; another port or https is named, since it is not kept."""
    if name not in keys:
        return
    path, line = keys.place(name)
    text = keys.text(name) or ""
    odd = sorted(set(_PORT.findall(text)) - {"2379", "2380"})
    if "https:" in text:
        keys.report.change(path, line, f"it is http here: {NO_TLS}")
    if odd:
        keys.report.change(path, line, f"etcd listens on 2379 and 2380 alone, not on {', '.join(odd)}")


def _metadata(keys: Keys, into: Cluster) -> None:
    path, line = keys.place("metadata")
    found: dict[str, str] = {}
    for word in (keys.text("metadata") or "").split(","):
        if not word.strip():
            continue
        try:
            key, value = metadata_pair(word)
            if "%" in value:
                raise BadValue(f"{value} is not filled in here: a machine is known by its name")
        except BadValue as error:
            keys.report.drop(f"{path}[{word.strip()}]", line, str(error))
            continue
        found[key] = value
    if found:
        into.agent["metadata"] = found


def _members(keys: Keys, name: str, into: Cluster) -> None:
    path, line = keys.place(name)
    words = _words(keys, name)
    if any("https:" in word for word in words):
        keys.report.change(path, line, f"it is http here: {NO_TLS}")
    for word in words:
        url = _URL.fullmatch(word.rpartition("=")[2])
        host = url[1].strip("[]") if url else word
        try:
            found = member(PRIVATE if host == PUBLIC else host)
        except BadValue as error:
            keys.report.drop(f"{path}[{word}]", line, str(error))
            continue
        if found not in into.members:
            into.members.append(found)


def _words(keys: Keys, name: str) -> list[str]:
    return [word.strip().strip("\"'") for word in (keys.words(name)) if word.strip()]
