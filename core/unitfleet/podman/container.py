"""`podman run` for a `.container` file. Source: ConvertContainer of pkg/systemd/quadlet/quadlet.go."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from unitfleet.podman.command import Command, Needs, port, storage
from unitfleet.podman.files import Source, container_name
from unitfleet.podman.text import Refused

_GROUP = "Container"

_LAST = {
    "Timezone": "--tz",
    "PidsLimit": "--pids-limit",
    "ShmSize": "--shm-size",
    "WorkingDir": "--workdir",
    "IP": "--ip",
    "IP6": "--ip6",
    "HostName": "--hostname",
    "StopSignal": "--stop-signal",
    "StopTimeout": "--stop-timeout",
    "Pull": "--pull",
    "Memory": "--memory",
    "Retry": "--retry",
    "RetryDelay": "--retry-delay",
}
_EACH = {
    "NetworkAlias": "--network-alias",
    "Ulimit": "--ulimit",
    "DNS": "--dns",
    "DNSOption": "--dns-option",
    "DNSSearch": "--dns-search",
    "GroupAdd": "--group-add",
    "AddHost": "--add-host",
    "Tmpfs": "--tmpfs",
}
_FLAGS = {"RunInit": "--init", "EnvironmentHost": "--env-host", "ReadOnlyTmpfs": "--read-only-tmpfs"}
_LABELS = {"SecurityLabelType": "type", "SecurityLabelFileType": "filetype", "SecurityLabelLevel": "level"}
_HEALTH = (
    "Cmd Interval OnFailure LogDestination MaxLogCount MaxLogSize Retries StartPeriod Timeout StartupCmd "
    "StartupInterval StartupRetries StartupSuccess StartupTimeout"
).split()
_RESOLVED = frozenset(("volume", "bind", "glob", "image"))  # mounts whose source may be a file or relative


def run(
    source: Source,
    *,
    service_type: str,
    needs: Needs,
    mounts: list[str],
    present: Callable[[str], bool],
) -> list[str]:
    """Return the command line, podman's own name first; raises `Refused`.

    `needs` gets the services of the files that it refers to, `mounts` the paths of the host; `present` tells
    whether a device is there.
    """
    text = source.text
    image, rootfs = text.text(_GROUP, "Image"), text.text(_GROUP, "Rootfs")
    if not image and not rootfs:
        raise Refused("no Image or Rootfs key specified")
    if image and rootfs:
        raise Refused("the Image And Rootfs keys conflict can not be specified together")
    command = Command(source, "run")
    image = command.image(image, needs)
    command.add("--name", container_name(source.filename, text), "--replace", "--rm")
    if (driver := text.value(_GROUP, "LogDriver")) is not None:
        command.add("--log-driver", driver)
    command.each_word("LogOpt", "--log-opt")
    mode = text.text(_GROUP, "CgroupsMode")
    command.add(*(("--cgroups", mode) if mode else ("--cgroups=split",)))
    command.options(_LAST)
    _entrypoint(command)
    for key, option in _EACH.items():
        command.each(key, option)
    for key, option in _FLAGS.items():
        command.flag(key, option)
    if (proxy := text.boolean(_GROUP, "HttpProxy")) is not None:
        command.add(f"--http-proxy={'true' if proxy else 'false'}")
    _networks(command, needs)
    _notify(command, service_type)
    _confinement(command, present)
    _user(command)
    _user_mappings(command)
    _volumes(command, needs, mounts)
    if update := text.text(_GROUP, "AutoUpdate"):
        command.add("--label", f"io.containers.autoupdate={update}")
    for exposed in text.all(_GROUP, "ExposeHostPort"):
        command.add("--expose", port(exposed))
    command.each("PublishPort", "--publish")
    command.pairs("Environment", "--env")
    command.pairs("Label", "--label")
    command.pairs("Annotation", "--annotation")
    command.each_argument("Mask", "--security-opt", "mask=")
    command.each_argument("Unmask", "--security-opt", "unmask=")
    for path in text.all_arguments(_GROUP, "EnvironmentFile"):
        command.add(
            "--env-file", f"-{source.absolute(path[1:])}" if path.startswith("-") else source.absolute(path)
        )
    command.each_argument("Secret", "--secret")
    for mount in text.all_arguments(_GROUP, "Mount"):
        command.add("--mount", _mount(source, mount, needs, mounts))
    for name in _HEALTH:
        command.last(f"Health{name}", "--health-" + _dashed(name))
    _pod(command)
    command.podman_args()
    command.add(*((image,) if image else ("--rootfs", rootfs)))
    command.add(*text.last_arguments(_GROUP, "Exec"))
    return command.words


def _entrypoint(command: Command) -> None:
    entrypoint = command.text.value(_GROUP, "Entrypoint")
    if entrypoint is not None:
        command.add(*(("--entrypoint", entrypoint) if entrypoint else ("--entrypoint=",)))


def _networks(command: Command, needs: Needs) -> None:
    for network in command.text.all(_GROUP, "Network"):
        name, colon, options = network.partition(":")
        if name.endswith((".network", ".container")):
            found = command.source.sibling(name, f"requested Quadlet unit {name} was not found")
            if not found.resource:
                raise Refused(f"cannot get the resource name of {name}")
            needs.append(found.service)
            joins = name.endswith(".container")
            if joins and colon:
                raise Refused("extra options are not supported when joining another container's network")
            network = f"container:{found.resource}" if joins else f"{found.resource}{colon}{options}"
        command.add("--network", network)


def _notify(command: Command, service_type: str) -> None:
    if service_type == "oneshot":
        return
    notify = command.text.text(_GROUP, "Notify").lower()
    told = (
        "healthy" if notify == "healthy" else "container" if command.text.boolean(_GROUP, "Notify") else "conmon"
    )
    command.add(f"--sdnotify={told}", "-d")


def _confinement(command: Command, present: Callable[[str], bool]) -> None:
    text = command.text
    if text.boolean(_GROUP, "NoNewPrivileges"):
        command.add("--security-opt=no-new-privileges")
    for key, word in (("SecurityLabelDisable", "disable"), ("SecurityLabelNested", "nested")):
        if text.boolean(_GROUP, key):
            command.add("--security-opt", f"label={word}")
    for key, word in _LABELS.items():
        if value := text.text(_GROUP, key):
            command.add("--security-opt", f"label={word}:{value}")
    if profile := text.text(_GROUP, "AppArmor"):
        command.add("--security-opt", f"apparmor={profile}")
    for device in text.all_plain(_GROUP, "AddDevice"):
        if not device.startswith("-") or present(device[1:].partition(":")[0]):
            command.add("--device", device.removeprefix("-"))
    if (seccomp := text.value(_GROUP, "SeccompProfile")) is not None:
        command.add("--security-opt", f"seccomp={seccomp}")
    for key, option in (("DropCapability", "--cap-drop"), ("AddCapability", "--cap-add")):
        for capability in text.all_plain(_GROUP, key):
            command.add(option, capability.lower())
    command.each_word("Sysctl", "--sysctl")
    command.flag("ReadOnly", "--read-only")
    if text.boolean(_GROUP, "VolatileTmp") and not text.boolean(_GROUP, "ReadOnly"):
        command.add("--tmpfs", "/tmp:rw,size=512M,mode=1777")


def _user(command: Command) -> None:
    user, group = command.text.text(_GROUP, "User"), command.text.text(_GROUP, "Group")
    if group and not user:
        raise Refused("invalid Group set without User")
    if user:
        command.add("--user", f"{user}:{group}" if group else user)


def _user_mappings(command: Command) -> None:
    text, before = command.text, len(command.words)
    command.last("UserNS", "--userns")
    command.each_word("UIDMap", "--uidmap")
    command.each_word("GIDMap", "--gidmap")
    command.last("SubUIDMap", "--subuidname")
    command.last("SubGIDMap", "--subgidname")
    if len(command.words) == before:
        _remap(command)
    elif any(text.last(_GROUP, key) is not None for key in ("RemapUid", "RemapGid", "RemapUsers")):
        raise Refused("deprecated Remap keys are set along with explicit mapping keys")


def _remap(command: Command) -> None:
    text = command.text
    uids, gids = text.all_plain(_GROUP, "RemapUid"), text.all_plain(_GROUP, "RemapGid")
    match text.last(_GROUP, "RemapUsers") or "":
        case "" if uids or gids:
            raise Refused(f"{'Uid' if uids else 'Gid'}Map set without RemapUsers")
        case "":
            pass
        case "manual":
            command.each_word("RemapUid", "--uidmap")
            command.each_word("RemapGid", "--gidmap")
        case "auto":
            options = [f"uidmapping={uid}" for uid in uids] + [f"gidmapping={gid}" for gid in gids]
            if size := text.number(_GROUP, "RemapUidSize"):
                options.append(f"size={size}")
            command.add("--userns", ":".join(["auto", ",".join(options)][: 1 + bool(options)]))
        case "keep-id":
            for name, found in (("UID", uids), ("GID", gids)):
                if len(found) > 1:
                    raise Refused(f"RemapUsers=keep-id supports only a single value for {name} mapping")
            options = [f"uid={uid}" for uid in uids] + [f"gid={gid}" for gid in gids]
            command.add("--userns", ":".join(["keep-id", ",".join(options)][: 1 + bool(options)]))
        case other:
            raise Refused(f"unsupported RemapUsers option '{other}'")


def _volumes(command: Command, needs: Needs, mounts: list[str]) -> None:
    for volume in command.text.all(_GROUP, "Volume"):
        parts = volume.split(":", 2)
        if len(parts) > 1 and parts[0]:
            parts[0] = storage(command.source, parts[0], needs, mounts, images=False)
        command.add("-v", ":".join(parts) if parts[0] else parts[1] if len(parts) > 1 else parts[0])


def _mount(source: Source, text: str, needs: Needs, mounts: list[str]) -> str:
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise Refused(
            "incorrect mount format: should be --mount type=<type>,[src=<source>,]target=<target>"
        ) from None
    kinds = [field.partition("=")[2] for field in fields if field.partition("=")[0] == "type"]
    kind = kinds[-1] if kinds else "volume"
    if kind not in _RESOLVED:
        return text
    rest = [field for field in fields if field.partition("=")[0] != "type"]
    sources = [index for index, field in enumerate(rest) if field.partition("=")[0] in ("source", "src")]
    if not sources or not rest[sources[-1]].partition("=")[2]:
        raise Refused("source cannot be empty")
    at = sources[-1]
    rest[at] = "source=" + storage(source, rest[at].partition("=")[2], needs, mounts, images=True)
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow([f"type={kind}", *rest])
    return written.getvalue()


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")


def _pod(command: Command) -> None:
    pod = command.text.text(_GROUP, "Pod")
    if not pod:
        return
    if not pod.endswith(".pod"):
        raise Refused(f"pod {pod} is not Quadlet based")
    found = command.source.sibling(pod, f"quadlet pod unit {pod} does not exist")
    command.add("--pod", found.resource)
