"""`coreos.units`: what a host's own systemd is told, and which of CoreOS's services have become something else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from unitctl.bootstrap import contents
from unitctl.bootstrap.coreos.mend import mend, remarks
from unitctl.bootstrap.coreos.report import Keys, Report
from unitctl.bootstrap.userdata import HostFile
from unitctl.bootstrap.yamltree import Mapping, Node, Scalar, Sequence

START_SCRIPT = "/var/lib/cloud/scripts/per-boot/units"
_DONE = "/var/lib/cloud/instance/units-started"

FLEET = ("fleet.service", "fleet.socket")
ETCD = ("etcd.service", "etcd2.service", "etcd-member.service")
_NO_FORM = {
    **dict.fromkeys(("locksmithd.service", "update-engine.service"), "Unitfleet reboots no host"),
    "flanneld.service": "there is no overlay network: containers use ports of their host",
    "early-docker.service": "there is one Docker Engine",
    "early-docker.socket": "there is one Docker Engine",
}
_COMMANDS = ("start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart")
_NAME = re.compile(r"[A-Za-z0-9:_.@\\-]+\.(service|socket|timer|mount|automount|swap|target|path|slice|device)")
_NETWORK = re.compile(r"[A-Za-z0-9:_.@\\-]+\.(network|netdev|link)")
_IN_EVERY_IMAGE = re.compile(r"(systemd-|docker\.|ssh\.|getty|cron\.).*")


@dataclass(slots=True)
class Units:
    """What the units come to: files, and the words to systemctl in their order."""

    files: list[HostFile] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    fleet: bool = False
    etcd: bool = False
    docker: bool = False

    def script(self) -> HostFile | None:
        """The script that gives the orders at each boot, as CoreOS did; the first time runcmd calls it.

        At the first boot cloud-init runs it earlier too, before what it needs is there: it waits for its turn.
        """
        if not self.orders:
            return None
        lines = [
            "#!/bin/sh",
            "# The orders of coreos.units: at the first boot once all else is done, then at each boot.",
            f'[ "${{1:-}}" = first ] || [ -e {_DONE} ] || exit 0',
            "systemctl daemon-reload",
            *(f"systemctl {order}" for order in self.orders),
            f"touch {_DONE}",
        ]
        return HostFile(START_SCRIPT, "\n".join(lines) + "\n", "0755")


def read_units(node: Node, path: str, line: int, report: Report) -> Units:
    """Read `coreos.units`."""
    found = Units()
    if not isinstance(node, Sequence):
        report.drop(path, line, "a list of units is expected here")
        return found
    for number, item in enumerate(node.items):
        if not isinstance(item, Mapping):
            report.drop(f"{path}[{number}]", item.line, "a unit has name, command, content")
            continue
        name = item.entries.get("name")
        if not isinstance(name, Scalar) or not (_NAME.fullmatch(name.text) or _NETWORK.fullmatch(name.text)):
            shown = f"[{name.text}]" if isinstance(name, Scalar) else f"[{number}]"
            report.drop(f"{path}{shown}", item.line, "it has no name that systemd could give a unit")
            continue
        keys = Keys(item, f"{path}[{name.text}]", report)
        keys.take("name")
        _read(name.text, item.line, keys, found)
        for other in list(keys.rest()):
            keys.drop(other, "CoreOS knew no such key of a unit")
    return found


def _read(name: str, line: int, keys: Keys, found: Units) -> None:
    has_content = "content" in keys
    if name in FLEET or (name in ETCD and not has_content):
        _ours(name, line, keys, found)
        return
    if name in _NO_FORM and not has_content:
        keys.report.drop(keys.path, line, _NO_FORM[name])
        for key in list(keys.rest()):
            keys.take(key)  # said with the unit
        return
    found.docker = found.docker or name.startswith("docker.")
    folder = "/etc/systemd/network" if _NETWORK.fullmatch(name) else "/etc/systemd/system"
    _content(name, f"{folder}/{name}", keys, found)
    _drop_ins(f"{folder}/{name}.d", keys, found)
    _orders(name, line, has_content, keys, found)


def _ours(name: str, line: int, keys: Keys, found: Units) -> None:
    """What has become ours or bootstrap's own: started by it, so that only additions are lost."""
    if name in FLEET:
        found.fleet = True
        became = "unit-agent.service, and unit-master.service on members of etcd"
        why = "fleet's own settings say nothing to unit-agent: see unit-agent --help"
    else:
        found.etcd = True
        became = "etcd.service, on the hosts that are members"
        why = "bootstrap writes /etc/default/etcd: see --set etcd.KEY=VALUE"
    keys.report.change(keys.path, line, f"it becomes {became}")
    for key in ("command", "enable", "runtime", "mask"):
        keys.take(key)
    keys.drop("drop_ins", why)
    keys.drop("content", why)


def _content(name: str, path: str, keys: Keys, found: Units) -> None:
    if "content" not in keys:
        return
    place, line = keys.place("content")
    content = keys.text("content")
    if content is None:
        return
    mended, changes = mend(content)
    found.docker = found.docker or "docker" in content
    found.files.append(HostFile(path, mended))
    for what in changes + remarks(content):
        keys.report.change(place, line, what)
    if "[X-Fleet]" in content:
        why = contents.refusal(name, content)
        more = f", which would refuse it: {why}" if why else ""
        keys.report.change(place, line, f"it runs on each host as before; to have it placed: unitctl submit{more}")


def _drop_ins(folder: str, keys: Keys, found: Units) -> None:
    if "drop_ins" not in keys:
        return
    path, line = keys.place("drop_ins")
    node = keys.take("drop_ins")
    if not isinstance(node, Sequence):
        keys.report.drop(path, line, "a list of drop-ins is expected here")
        return
    for number, item in enumerate(node.items):
        name = item.entries.get("name") if isinstance(item, Mapping) else None
        text = item.entries.get("content") if isinstance(item, Mapping) else None
        if not isinstance(name, Scalar) or not isinstance(text, Scalar) or "/" in name.text or not name.text:
            keys.report.drop(f"{path}[{number}]", item.line, "a drop-in has name and content")
            continue
        mended, changes = mend(text.text)
        for what in changes + remarks(text.text):
            keys.report.change(f"{path}[{name.text}]", item.line, what)
        found.files.append(HostFile(f"{folder}/{name.text}", mended))
        keys.report.used.append(f"{path}[{name.text}]")


def _orders(name: str, line: int, has_content: bool, keys: Keys, found: Units) -> None:
    masked = keys.truth("mask")
    if keys.truth("enable"):
        found.orders.append(f"enable {name}")
    if "runtime" in keys:
        place, at = keys.place("runtime")
        if keys.truth("runtime"):
            keys.report.change(place, at, "it outlives a reboot: cloud-init writes files at the first boot alone")
    if "command" in keys:
        place, at = keys.place("command")
        command = keys.text("command")
        if command in _COMMANDS:
            found.orders.append(f"--no-block {command} {name}")
        elif command is not None:
            keys.report.drop(place, at, f"{command!r} is no command: one of {', '.join(_COMMANDS)}")
        if not has_content and not _IN_EVERY_IMAGE.fullmatch(name) and command in _COMMANDS:
            keys.report.change(keys.path, line, f"the image must have {name}")
    if masked:
        found.orders.append(f"mask {name}")
