"""The `[Container]` section: Podman Quadlet's keys, read into the Docker Engine's terms.

Source of the keys and their meaning: podman-container.unit(5).

The last assignment of a single value counts, lists keep their order, an empty assignment resets. `$$` is a
dollar; any other `$` is the container's own affair, since no shell and no systemd stand between.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from unitfleet import mounts, ports, quadlet_health, quadlet_more, quantities, timespan
from unitfleet.command import swallowing_shell
from unitfleet.problems import BadValue
from unitfleet.quadlet_files import NOTHING, Beside
from unitfleet.quadlet_keys import UNENFORCED
from unitfleet.quadlet_values import dollars, json_words, pairs
from unitfleet.section import Section, absolute, environment_file
from unitfleet.service import choice
from unitfleet.spec import ContainerSpec, Limit, MountSpec, Pull, ServiceSpec

CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
MIN_MEMORY = 6 * 1024**2  # what the Engine takes
LOG_DRIVERS = "json-file local journald syslog none gelf fluentd awslogs splunk gcplogs logentries".split()

_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::[0-9]{1,5})?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\w[\w.-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{12,64}",
    re.ASCII,
)
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([bkmgtp]?)(?:i?b)?", re.IGNORECASE)
_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack as".split()
)
_HOST = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,253}[a-zA-Z0-9])?")


def read(section: Section, service: ServiceSpec, beside: Beside = NOTHING) -> ContainerSpec:
    """Read `[Container]`; of `service` LimitNOFILE= becomes the container's, unless Ulimit=nofile says else.

    `beside` are the `.volume` and `.network` files that the section refers to, by now by their names.
    """
    image = section.get("Image", image_reference, "")
    if section.last("Image") is None and section.last("Rootfs") is None:
        line = section.options[0].line if section.options else 0
        section.problems.error(
            line, "[Container] has no Image=", "say which image to run: Image=registry/name:tag"
        )
    read_only = section.get("ReadOnly", quantities.boolean, False)
    spec = ContainerSpec(
        image=image,
        exec=_last_words(section, "Exec"),
        entrypoint=_entrypoint(section),
        environment=section.variables("Environment"),
        environment_files=section.each_word("EnvironmentFile", environment_file),
        ports=tuple(port for ports_ in section.each("PublishPort", ports.parse) for port in ports_),
        mounts=_without_copies(_mounts(section, read_only), beside),
        networks=_networks(section),
        memory=section.get("Memory", _memory, 0),
        shm_size=section.get("ShmSize", size, 0),
        ulimits=_ulimits(section, service),
        user=_user(section),
        working_dir=section.get("WorkingDir", absolute, ""),
        hostname=section.get("HostName", _hostname, ""),
        labels=pairs(section, "Label"),
        add_capabilities=section.each_word("AddCapability", _capability),
        drop_capabilities=section.each_word("DropCapability", _capability),
        devices=section.each_word("AddDevice", _device),
        add_hosts=section.each("AddHost", _add_host),
        dns=section.each("DNS", _address),
        read_only=read_only,
        run_init=section.get("RunInit", quantities.boolean, False),
        stop_signal=section.get("StopSignal", quantities.signal_name, ""),
        stop_timeout_s=section.get("StopTimeout", timespan.parse_finite, None),
        pids_limit=section.get("PidsLimit", _pids_limit, 0),
        log_driver=section.get("LogDriver", _log_driver, ""),
        log_options=section.each_word("LogOpt", _log_option),
        pull=section.get("Pull", choice(Pull), Pull.MISSING),
        notify_healthy=section.text("Notify").lower() == "healthy",
        notify_socket=section.get("Notify", _notify, False),
        container_name=section.get("ContainerName", _container_name, ""),
        health=quadlet_health.read(section),
    )
    spec = msgspec.structs.replace(
        spec,
        made_volumes=tuple(beside.volumes.values()),
        made_networks=tuple(beside.networks.values()),
        **quadlet_more.read(section),
    )
    _warn_of_shell(section, spec)
    _check_notify(section, spec)
    return spec


def size(text: str) -> int:
    """Read a size in the form that podman and docker take: `512m`, `1G`, `64MiB`; raises `BadValue`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadValue(f"{text[:40]!r} is no size: write bytes, or 64k, 512m, 1.5g")
    return quantities.size(match[1] + match[2].upper())


def _memory(text: str) -> int:
    value = size(text)
    if value < MIN_MEMORY:
        raise BadValue(f"{text[:40]!r} is too little: at least {MIN_MEMORY // 1024**2}m, as in 512m or 2g")
    return value


def image_reference(text: str) -> str:
    """Read an image reference, or an image's id; raises `BadValue` that shows the right form."""
    if text.endswith((".image", ".build")):
        raise BadValue(f"{text[:80]!r} refers to another Quadlet file, which is not supported by this version")
    if not _IMAGE.fullmatch(text):
        raise BadValue(
            f"{text[:80]!r} is no image reference: write [registry/]name[:tag][@sha256:…], in lower case"
        )
    return text


def _last_words(section: Section, name: str) -> tuple[str, ...]:
    option = section.last(name)
    return () if option is None else tuple(dollars(word) for word in section.words(option))


def _entrypoint(section: Section) -> tuple[str, ...] | None:
    assigned = [option for option in section.options if option.name == "Entrypoint"]
    if not assigned:
        return None
    option = assigned[-1]
    if option.value.startswith("["):
        return section.read(option, json_words, ())
    return _last_words(section, "Entrypoint")


def _mounts(section: Section, read_only: bool) -> tuple[MountSpec, ...]:
    found: list[MountSpec] = [*section.each("Volume", mounts.volume)]
    found += section.each("Mount", mounts.mount)
    found += section.each("Tmpfs", mounts.tmpfs)
    if section.get("VolatileTmp", quantities.boolean, False) and not read_only:
        found.append(mounts.tmpfs("/tmp:rw,size=512M,mode=1777"))
    seen: set[str] = set()
    for spec in found:
        if spec.target in seen:
            line = next(option.line for option in section.options if option.name in ("Volume", "Mount", "Tmpfs"))
            section.problems.error(line, f"two mounts at {spec.target}", "a path in the container takes one mount")
        seen.add(spec.target)
    return tuple(found)


def _without_copies(mounts: tuple[MountSpec, ...], beside: Beside) -> tuple[MountSpec, ...]:
    """Add what a `.volume` file says with Copy=no to the mounts of the volume, where the Engine has it."""
    empty = {volume.name for volume in beside.volumes.values() if not volume.copy_up}
    return tuple(
        msgspec.structs.replace(mount, options=(*mount.options, "nocopy"))
        if mount.kind == "volume" and mount.source in empty and "nocopy" not in mount.options
        else mount
        for mount in mounts
    )


def _networks(section: Section) -> tuple[str, ...]:
    names = section.each("Network", _network)
    modes = [name for name in names if name in ("host", "none")]
    if modes and len(names) > 1:
        line = section.listed("Network")[-1].line
        section.problems.error(line, f"Network={modes[0]} goes with no other network", "leave one of them")
    return tuple(name for name in names if name != "bridge") if set(names) != {"bridge"} else ()


def _network(text: str) -> str:
    if text.startswith(("pasta", "slirp4netns", "private", "container:", "ns:")) or ":" in text:
        raise BadValue(f"{text[:60]!r} is not supported by this version: write host, none or a network's name")
    if text.endswith((".network", ".container", ".pod")):
        raise BadValue(
            f"{text[:60]!r} refers to another Quadlet file, which is not beside this one: "
            "write the name of a network that the machine has"
        )
    if not mounts.VOLUME_NAME.fullmatch(text):
        raise BadValue(f"{text[:60]!r} is no network's name")
    return text


def _ulimits(section: Section, service: ServiceSpec) -> tuple[tuple[str, Limit], ...]:
    found = dict(section.each("Ulimit", _ulimit))
    for name, limit in service.limits:
        if name == "NOFILE":
            found.setdefault("nofile", limit)
    return tuple(found.items())


def _ulimit(text: str) -> tuple[str, Limit]:
    name, equals, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    if not equals or name not in _ULIMITS:
        raise BadValue(
            f"{text[:40]!r} is no limit: write nofile=1024:4096; names are {', '.join(sorted(_ULIMITS))}"
        )
    low = _ulimit_value(soft)
    high = _ulimit_value(hard) if colon else low
    if high is not None and (low is None or low > high):
        raise BadValue(f"{text[:40]!r} has a soft limit above the hard one")
    return name, Limit(soft=low, hard=high)


def _ulimit_value(text: str) -> int | None:
    return None if text in ("-1", "unlimited", "infinity") else quantities.whole(text, 0, 2**63 - 1)


def _user(section: Section) -> str:
    user, group = section.text("User"), section.text("Group")
    option = section.last("Group")
    if option is not None and not user:
        section.problems.error(option.line, "Group= without User=", "give both, or User=uid:gid")
    if group and ":" in user and option is not None:
        section.problems.error(option.line, f"Group= and User={user[:40]} both name a group", "leave one of them")
    return f"{user}:{group}" if user and group else user


def _hostname(text: str) -> str:
    if not _HOST.fullmatch(text) or ".." in text:
        raise BadValue(f"{text[:60]!r} is no host name: letters, digits, '-' and '.'")
    return text


def _capability(text: str) -> str:
    name = text.upper()
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{2,40}", name):
        raise BadValue(f"{text[:40]!r} is no capability: write CAP_NET_ADMIN, or all")
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _device(text: str) -> tuple[str, str, str, bool]:
    parts = text.removeprefix("-").split(":")
    host = absolute(parts[0])
    inside = absolute(parts[1]) if len(parts) > 1 and parts[1].startswith("/") else host
    rest = parts[2:] if len(parts) > 1 and parts[1].startswith("/") else parts[1:]
    permissions = rest[0] if rest else "rwm"
    if len(rest) > 1 or not permissions or not set(permissions) <= set("rwm"):
        raise BadValue(f"{text[:60]!r} is no device: write /dev/host[:/dev/container][:rwm]")
    return host, inside, permissions, text.startswith("-")


def _add_host(text: str) -> str:
    name, colon, address = text.partition(":")
    if not colon or not _HOST.fullmatch(name):
        raise BadValue(f"{text[:60]!r} is no host entry: write name:address")
    return f"{name}:{address if address == 'host-gateway' else _address(address.strip('[]'))}"


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadValue(f"{text[:40]!r} is no IP address") from None


def _pids_limit(text: str) -> int:
    return max(0, quantities.whole(text, -1, 2**31 - 1))


def _log_driver(text: str) -> str:
    if text not in LOG_DRIVERS:
        raise BadValue(f"{text[:40]!r} is no log driver of the Engine: {', '.join(LOG_DRIVERS)}")
    return text


def _log_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadValue(f"{text[:40]!r} is no option: write key=value")
    return key, value


def _notify(text: str) -> bool:
    """Tell whether the container itself says when it is ready."""
    if text.lower() == "healthy":
        return False
    said = quantities.boolean(text)
    if said and "Notify=yes" in UNENFORCED:
        raise BadValue(f"{text!r} is not supported by this version: write healthy, or leave it out")
    return said


def _container_name(text: str) -> str:
    if not CONTAINER_NAME.fullmatch(text):
        raise BadValue(
            f"{text[:60]!r} is no container name: letters, digits, '_', '.' and '-', '%p-%i' for instances"
        )
    return text


def _check_notify(section: Section, spec: ContainerSpec) -> None:
    """Refuse to wait for a check that is switched off; warn when only the image may have one."""
    option = section.last("Notify")
    test = spec.health.test if spec.health else ()
    if option is None or not spec.notify_healthy:
        return
    if test == ("NONE",):
        section.problems.error(
            option.line,
            "Notify=healthy waits for the check that HealthCmd=none switches off",
            "leave out one of them",
        )
    elif not test:
        section.problems.warn(
            option.line,
            "Notify=healthy without HealthCmd= waits for the image's own health check; an image that has none "
            "counts as started at once",
            "say how health is told: HealthCmd=",
        )


def _warn_of_shell(section: Section, spec: ContainerSpec) -> None:
    option = section.last("Entrypoint") or section.last("Exec")
    shell = swallowing_shell((*(spec.entrypoint or ()), *spec.exec))
    if shell is not None and option is not None and not spec.run_init:
        section.problems.warn(
            option.line,
            f"{shell!r} is process 1 of the container and does not pass the stop signal on",
            "put exec before the last command of the script, or RunInit=yes",
        )
