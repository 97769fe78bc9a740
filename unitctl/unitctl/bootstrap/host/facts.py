"""Gathers what a host knows of itself; each question has a deadline."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitctl.bootstrap.host import imds, remembered, srv
from unitctl.bootstrap.host.decide import ENVIRONMENT, Facts, own_place
from unitctl.bootstrap.host.etcd import DATA, FILE, EtcdFacts, Listed, bracketed
from unitctl.bootstrap.host.remembered import told_by_cloud_init
from unitctl.bootstrap.hostplan import HostPlan, NameFrom
from unitctl.render import say

ASK_MEMBER_S = 2.0
_NOT_OWN = ("127.", "169.254.", "fe80:")  # others have them too
_INSTANCE = "var/lib/cloud/data/instance-id"
_STATE = re.compile(r'^ETCD_INITIAL_CLUSTER_STATE="?(\w+)"?$', re.MULTILINE)


def gather(plan: HostPlan, root: Path, imds_address: str) -> Facts:
    """Return the facts that the orders ask for, and say what could not be learnt."""
    instance_id = told_by_cloud_init(_text(root / _INSTANCE))
    unnamed = plan.name_from is NameFrom.INSTANCE_ID and not instance_id
    instance = imds.Instance()
    if plan.ec2_metadata or plan.needs_addresses or unnamed:
        instance = imds.ask(imds_address)
        for note in (instance.absent, f"tags that can be no metadata: {', '.join(instance.skipped)}"):
            if note and not note.endswith(": "):
                say(f"note: {note}")
    kept = remembered.Remembered()
    if instance.absent:
        kept = remembered.read(_text(root / remembered.PATH.lstrip("/")), instance.instance_id or instance_id)
        if kept.metadata:
            say("note: what EC2 said at a former boot holds")
    addresses = _own_addresses()
    facts = Facts(
        addresses=addresses,
        private=instance.private or _outward() or next(iter(addresses), ""),
        public=instance.public,
        instance_id=instance_id or instance.instance_id or kept.instance_id,
        ec2={**kept.metadata, **instance.metadata},
        members=srv.find(plan.srv) if plan.srv else (),
        of_root=tuple(path for path in plan.masters_files if _is_of_root(root / path.lstrip("/"))),
        texts={path: text for path in (*plan.fill_in, ENVIRONMENT) if (text := _text(root / path.lstrip("/")))},
    )
    members, own = own_place(plan, facts)
    if not own:
        return facts
    has_data = (root / DATA.lstrip("/") / "member").is_dir()
    state = _STATE.search(_text(root / FILE.lstrip("/")))
    found = EtcdFacts(
        installed=any((root / place).exists() for place in ("usr/bin/etcd", "usr/local/bin/etcd")),
        has_data=has_data,
        state=state[1] if state else "",
        listed=None if has_data else listed([f"{bracketed(name)}:2379" for name in members if name != own]),
    )
    return replace(facts, etcd=found)


def listed(endpoints: Sequence[str]) -> tuple[Listed, ...] | None:
    """Whom a running cluster lists, by the first of some members that answers; None when none does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for endpoint in endpoints:
        request = urllib.request.Request(f"http://{endpoint}/v3/cluster/member/list", data=b"{}", method="POST")
        try:
            with opener.open(request, timeout=ASK_MEMBER_S) as answer:
                members = json.load(answer)["members"]
            return tuple(_listed(member) for member in members)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not started yet, or not able to say: the next one may
    return None


def _listed(member: Any) -> Listed:
    """Read a member of etcd's JSON; what is empty is left out there."""
    return Listed(f"{int(member['ID']):x}", tuple(member.get("peerURLs", ())), tuple(member.get("clientURLs", ())))


def _own_addresses() -> tuple[str, ...]:
    """Every address of this host but loopback's and link-local ones."""
    import psutil

    found = [
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return tuple(dict.fromkeys(text for text in found if text != "::1" and not text.startswith(_NOT_OWN)))


def _outward() -> str:
    """The address by which this host goes to the world; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            name: str = probe.getsockname()[0]
        except OSError:
            return ""
        return name


def _is_of_root(path: Path) -> bool:
    try:
        return path.stat().st_uid == 0
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
