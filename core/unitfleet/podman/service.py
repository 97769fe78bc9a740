"""The service that Quadlet would write for a file, with its command lines.

Source: initServiceUnitFile and Convert… of pkg/systemd/quadlet/quadlet.go. Only the kinds that we know more of
than their names are made: containers, volumes and networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from unitfleet.podman.command import Command
from unitfleet.podman.container import run
from unitfleet.podman.files import Source, container_name, kind, made
from unitfleet.podman.resources import create_network, create_volume
from unitfleet.podman.text import Refused, Text
from unitfleet.podman.words import joined
from unitfleet.quadlet_keys import KEYS

DEPENDENCIES = (
    "After Before BindsTo Conflicts OnFailure OnSuccess PartOf PropagatesReloadTo PropagatesStopTo "
    "ReloadPropagatedFrom Requires Requisite StopPropagatedFrom Upholds Wants"
).split()

_QUADLET_KEYS = frozenset(("DefaultDependencies",))


class Service:
    """The service's text and the command line of its ExecStart=."""

    def __init__(self, text: Text, start: list[str]) -> None:
        self.text = text
        self.start = start


def generate(source: Source, *, present: Callable[[str], bool] = lambda path: True) -> Service:
    """Make the service of a `.container`, `.volume` or `.network` file; raises `Refused`.

    `present` tells whether a device of the host is there: one with a leading `-` may be absent.
    """
    _check_keys(source, source.group, KEYS[source.group])
    _check_keys(source, "Quadlet", _QUADLET_KEYS)
    service = source.text.copy()
    service.filename = f"{made(source.filename, source.text).service}.service"
    _translate(service, source)
    if service.boolean("Quadlet", "DefaultDependencies") is not False:
        service.prepend("Unit", "After", "network-online.target")
        service.prepend("Unit", "Wants", "network-online.target")
    service.add("Unit", "SourcePath", source.path)
    service.add("Unit", "RequiresMountsFor", "%t/containers")
    service.rename(source.group, f"X-{source.group}")
    service.rename("Quadlet", "X-Quadlet")
    needs: list[str] = []
    mounts: list[str] = []
    if source.kind == "container":
        start = _container(service, source, needs, mounts, present)
    else:
        start = create_network(source) if source.kind == "network" else create_volume(source, needs, mounts)
        _oneshot(service)
    for name in needs:
        service.add("Unit", "Requires", f"{name}.service")
        service.add("Unit", "After", f"{name}.service")
    for path in mounts:
        service.add("Unit", "RequiresMountsFor", path)
    service.add("Service", "ExecStart", joined(start))
    if source.kind == "network" and source.text.boolean("Network", "NetworkDeleteOnStop"):
        remove = Command(source, "network", "rm", start[-1])
        service.add("Service", "ExecStopPost", joined(remove.words))
    service.warnings += source.text.warnings
    return Service(service, start)


def _check_keys(source: Source, group: str, known: Iterable[str]) -> None:
    for key in source.text.keys(group):
        if key not in known:
            raise Refused(f"unsupported key '{key}' in group '{group}' in {source.path}")


def _translate(service: Text, source: Source) -> None:
    """Name services where `[Unit]` names files of Quadlet's."""
    for key in DEPENDENCIES:
        words = service.all_plain("Unit", key)
        if any(kind(word) for word in words):
            found = [
                f"{source.sibling(word, f'unable to translate dependency for {word}').service}.service"
                if kind(word)
                else word
                for word in words
            ]
            service.unset("Unit", key)
            service.add("Unit", key, " ".join(found))


def _oneshot(service: Text) -> None:
    for key, value in (("SyslogIdentifier", "%N"), ("Type", "oneshot"), ("RemainAfterExit", "yes")):
        if service.last("Service", key) is None:
            service.put("Service", key, value)


def _container(
    service: Text, source: Source, needs: list[str], mounts: list[str], present: Callable[[str], bool]
) -> list[str]:
    mode = service.value("Service", "KillMode")
    if mode is not None and mode not in ("mixed", "control-group"):
        raise Refused(f"invalid KillMode '{mode}'")
    service_type = service.value("Service", "Type")
    if service_type not in (None, "notify", "oneshot"):
        raise Refused(f"invalid service Type '{service_type}'")
    start = run(source, service_type=service_type or "", needs=needs, mounts=mounts, present=present)
    name = container_name(source.filename, source.text)
    service.add("Service", "Environment", "PODMAN_SYSTEMD_UNIT=%n")
    if mode is None:
        service.put("Service", "KillMode", "mixed")
    remove = Command(source, "rm", "-v", "-f", "-i", name).words
    service.add("Service", "ExecStop", joined(remove))
    service.add("Service", "ExecStopPost", joined([f"-{remove[0]}", *remove[1:]]))
    _reload(service, source, name)
    service.add("Service", "Delegate", "yes")
    if service_type != "oneshot":
        service.put("Service", "Type", "notify")
        service.put("Service", "NotifyAccess", "all")
    if service.last("Service", "SyslogIdentifier") is None:
        service.put("Service", "SyslogIdentifier", "%N")
    if pod := source.text.text("Container", "Pod"):
        for key in ("BindsTo", "After"):
            service.add("Unit", key, f"{source.siblings[pod].service}.service")
    return start


def _reload(service: Text, source: Source, name: str) -> None:
    signal = source.text.text("Container", "ReloadSignal")
    words = source.text.last_arguments("Container", "ReloadCmd")
    if signal and words:
        raise Refused("ReloadCmd and ReloadSignal are mutually exclusive but both are set")
    if words:
        service.add("Service", "ExecReload", joined(Command(source, "exec", name, *words).words))
    elif signal:
        service.add("Service", "ExecReload", joined(Command(source, "kill", "--signal", signal, name).words))
