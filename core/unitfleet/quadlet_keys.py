"""The keys of Quadlet's `[Container]`, `[Volume]` and `[Network]`: what podman makes of each, and what we do.

Source: podman-container.unit(5), podman-volume.unit(5), podman-network.unit(5) and pkg/systemd/quadlet of
Podman 5 and 6. `docs/quadlet.md` is written from this table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Handling(StrEnum):
    """What becomes of a key."""

    DIRECT = "direct"  # the Docker Engine has a word for it
    EMULATED = "emulated"  # the agent does it
    LIMITED = "limited"  # a warning says what of it has no effect
    IMPOSSIBLE = "impossible"  # refused with the reason


class Takes(StrEnum):
    """What several assignments to a key come to, and how a value is split."""

    LAST = "last"
    LINES = "list"
    WORDS = "list of words"
    ARGUMENTS = "list of quoted words"
    PAIRS = "list of key=value"
    YES_NO = "yes or no"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `ours` is what it means here; for an impossible or limited one, why not."""

    name: str
    handling: Handling
    takes: Takes
    podman: str
    ours: str
    hint: str = ""  # what to write instead


_DIRECT, _EMULATED = Handling.DIRECT, Handling.EMULATED
_LIMITED, _IMPOSSIBLE = Handling.LIMITED, Handling.IMPOSSIBLE
_LAST, _LINES, _WORDS, _ARGUMENTS, _PAIRS, _YES_NO = Takes

_MAPS = "the Docker Engine maps users for all its containers or none (userns-remap)"
_DEPRECATED = "Quadlet itself has given it up"


def _table(keys: Iterable[Key]) -> dict[str, Key]:
    return {key.name: key for key in keys}


CONTAINER = _table(
    (
        Key("AddCapability", _DIRECT, _WORDS, "--cap-add", "HostConfig.CapAdd"),
        Key(
            "AddDevice", _DIRECT, _WORDS, "--device", "HostConfig.Devices; with a leading - left out where absent"
        ),
        Key("AddHost", _DIRECT, _LINES, "--add-host", "HostConfig.ExtraHosts"),
        Key("Annotation", _DIRECT, _PAIRS, "--annotation", "HostConfig.Annotations"),
        Key("AppArmor", _DIRECT, _LAST, "--security-opt apparmor=", "HostConfig.SecurityOpt"),
        Key(
            "AutoUpdate",
            _EMULATED,
            _LAST,
            "--label io.containers.autoupdate=",
            "the agent watches the tag's digest",
        ),
        Key(
            "CgroupsMode",
            _LIMITED,
            _LAST,
            "--cgroups",
            "it has no effect: the Engine makes the container's control group",
            "leave it out",
        ),
        Key("ContainerName", _DIRECT, _LAST, "--name", "the container's name, else one made of the unit's"),
        Key(
            "ContainersConfModule",
            _LIMITED,
            _LINES,
            "--module, before run",
            "it has no effect: there is no containers.conf",
            "say what the module sets with keys of [Container]",
        ),
        Key("DNS", _DIRECT, _LINES, "--dns", "HostConfig.Dns"),
        Key("DNSOption", _DIRECT, _LINES, "--dns-option", "HostConfig.DnsOptions"),
        Key("DNSSearch", _DIRECT, _LINES, "--dns-search", "HostConfig.DnsSearch"),
        Key("DropCapability", _DIRECT, _WORDS, "--cap-drop", "HostConfig.CapDrop"),
        Key("Entrypoint", _DIRECT, _LAST, "--entrypoint", "Entrypoint; empty clears the image's own"),
        Key("Environment", _DIRECT, _PAIRS, "--env", "Env"),
        Key(
            "EnvironmentFile",
            _EMULATED,
            _ARGUMENTS,
            "--env-file",
            "the agent reads it; with a leading - it may be absent",
        ),
        Key("EnvironmentHost", _EMULATED, _YES_NO, "--env-host", "the agent's own variables, below all others"),
        Key("Exec", _DIRECT, _LAST, "after the image", "Cmd"),
        Key("ExposeHostPort", _DIRECT, _LINES, "--expose", "ExposedPorts"),
        Key("GIDMap", _IMPOSSIBLE, _WORDS, "--gidmap", _MAPS, "give the group by Group="),
        Key(
            "GlobalArgs",
            _LIMITED,
            _ARGUMENTS,
            "before run",
            "it has no effect: there is no podman to give them to",
            "leave it out",
        ),
        Key("Group", _DIRECT, _LAST, "--user user:group", "User; needs User="),
        Key("GroupAdd", _DIRECT, _LINES, "--group-add", "HostConfig.GroupAdd"),
        Key("HealthCmd", _DIRECT, _LAST, "--health-cmd", "Healthcheck.Test; none switches the image's own off"),
        Key("HealthInterval", _DIRECT, _LAST, "--health-interval", "Healthcheck.Interval"),
        Key("HealthLogDestination", _EMULATED, _LAST, "--health-log-destination", "where the agent keeps results"),
        Key("HealthMaxLogCount", _EMULATED, _LAST, "--health-max-log-count", "how many results the agent keeps"),
        Key("HealthMaxLogSize", _EMULATED, _LAST, "--health-max-log-size", "how much of each result"),
        Key(
            "HealthOnFailure", _EMULATED, _LAST, "--health-on-failure", "the agent acts when the copy is unhealthy"
        ),
        Key("HealthRetries", _DIRECT, _LAST, "--health-retries", "Healthcheck.Retries"),
        Key("HealthStartPeriod", _DIRECT, _LAST, "--health-start-period", "Healthcheck.StartPeriod"),
        Key("HealthStartupCmd", _EMULATED, _LAST, "--health-startup-cmd", "the agent asks it until it succeeds"),
        Key("HealthStartupInterval", _EMULATED, _LAST, "--health-startup-interval", "how often"),
        Key("HealthStartupRetries", _EMULATED, _LAST, "--health-startup-retries", "failures before a restart"),
        Key(
            "HealthStartupSuccess",
            _EMULATED,
            _LAST,
            "--health-startup-success",
            "successes before HealthCmd= counts",
        ),
        Key("HealthStartupTimeout", _EMULATED, _LAST, "--health-startup-timeout", "how long one may take"),
        Key("HealthTimeout", _DIRECT, _LAST, "--health-timeout", "Healthcheck.Timeout"),
        Key("HostName", _DIRECT, _LAST, "--hostname", "Hostname"),
        Key("HttpProxy", _EMULATED, _YES_NO, "--http-proxy=", "the agent's http_proxy and its kin are passed on"),
        Key("IP", _DIRECT, _LAST, "--ip", "EndpointsConfig.IPAMConfig.IPv4Address"),
        Key("IP6", _DIRECT, _LAST, "--ip6", "EndpointsConfig.IPAMConfig.IPv6Address"),
        Key("Image", _DIRECT, _LAST, "the image", "Image, resolved once to a digest"),
        Key("Label", _DIRECT, _PAIRS, "--label", "Labels; none replaces one of ours"),
        Key("LogDriver", _DIRECT, _LAST, "--log-driver", "HostConfig.LogConfig.Type, the Engine's drivers"),
        Key("LogOpt", _DIRECT, _WORDS, "--log-opt", "HostConfig.LogConfig.Config"),
        Key("Mask", _DIRECT, _ARGUMENTS, "--security-opt mask=", "HostConfig.MaskedPaths"),
        Key("Memory", _DIRECT, _LAST, "--memory", "HostConfig.Memory, and the default request"),
        Key("Mount", _DIRECT, _ARGUMENTS, "--mount", "HostConfig.Mounts of type bind, volume or tmpfs"),
        Key("Network", _DIRECT, _LINES, "--network", "NetworkMode: host, none, or a network the machine has"),
        Key("NetworkAlias", _DIRECT, _LINES, "--network-alias", "EndpointsConfig.Aliases"),
        Key("NoNewPrivileges", _DIRECT, _YES_NO, "--security-opt=no-new-privileges", "HostConfig.SecurityOpt"),
        Key(
            "Notify", _EMULATED, _LAST, "--sdnotify", "when the copy counts as started: at once, READY=1, healthy"
        ),
        Key("PidsLimit", _DIRECT, _LAST, "--pids-limit", "HostConfig.PidsLimit"),
        Key("Pod", _EMULATED, _LAST, "--pod", "the members of a pod share one network namespace"),
        Key(
            "PodmanArgs",
            _LIMITED,
            _ARGUMENTS,
            "before the image",
            "options that have a key here are read as that key; others have no effect",
            "write it with a key of [Container]",
        ),
        Key("PublishPort", _DIRECT, _LINES, "--publish", "HostConfig.PortBindings; host ports are scheduled"),
        Key("Pull", _EMULATED, _LAST, "--pull", "when the agent pulls"),
        Key("ReadOnly", _DIRECT, _YES_NO, "--read-only", "HostConfig.ReadonlyRootfs"),
        Key("ReadOnlyTmpfs", _EMULATED, _YES_NO, "--read-only-tmpfs", "tmpfs at /run, /tmp and /var/tmp"),
        Key("ReloadCmd", _EMULATED, _ARGUMENTS, "ExecReload=podman exec", "run in the container by a reload"),
        Key("ReloadSignal", _EMULATED, _LAST, "ExecReload=podman kill --signal", "sent by a reload"),
        Key(
            "RemapGid", _IMPOSSIBLE, _WORDS, "--gidmap", f"{_DEPRECATED}, and {_MAPS}", "give the group by Group="
        ),
        Key("RemapUid", _IMPOSSIBLE, _WORDS, "--uidmap", f"{_DEPRECATED}, and {_MAPS}", "give the user by User="),
        Key(
            "RemapUidSize",
            _IMPOSSIBLE,
            _LAST,
            "--userns auto:size=",
            f"{_DEPRECATED}, and {_MAPS}",
            "leave it out",
        ),
        Key("RemapUsers", _IMPOSSIBLE, _LAST, "--userns", f"{_DEPRECATED}, and {_MAPS}", "leave it out"),
        Key("Retry", _EMULATED, _LAST, "--retry", "how often the agent tries a pull anew"),
        Key("RetryDelay", _EMULATED, _LAST, "--retry-delay", "how long it waits between"),
        Key(
            "Rootfs",
            _IMPOSSIBLE,
            _LAST,
            "--rootfs",
            "the Docker Engine runs images alone",
            "make an image of the folder (docker import) and name it by Image=",
        ),
        Key("RunInit", _DIRECT, _YES_NO, "--init", "HostConfig.Init"),
        Key(
            "SeccompProfile", _DIRECT, _LAST, "--security-opt seccomp=", "HostConfig.SecurityOpt, the file's text"
        ),
        Key("Secret", _EMULATED, _ARGUMENTS, "--secret", "a file of the cluster's secret, in memory"),
        Key("SecurityLabelDisable", _DIRECT, _YES_NO, "--security-opt label=disable", "HostConfig.SecurityOpt"),
        Key(
            "SecurityLabelFileType",
            _LIMITED,
            _LAST,
            "--security-opt label=filetype:",
            "it has no effect: the Docker Engine labels no files by type",
            "leave it out",
        ),
        Key("SecurityLabelLevel", _DIRECT, _LAST, "--security-opt label=level:", "HostConfig.SecurityOpt"),
        Key(
            "SecurityLabelNested",
            _LIMITED,
            _YES_NO,
            "--security-opt label=nested",
            "it has no effect: the Docker Engine lets no container label its own",
            "leave it out",
        ),
        Key("SecurityLabelType", _DIRECT, _LAST, "--security-opt label=type:", "HostConfig.SecurityOpt"),
        Key("ServiceName", _EMULATED, _LAST, "names the service", "what the unit is called, without .service"),
        Key("ShmSize", _DIRECT, _LAST, "--shm-size", "HostConfig.ShmSize"),
        Key(
            "StartWithPod",
            _EMULATED,
            _YES_NO,
            "the pod wants the container",
            "whether a start of the pod starts it",
        ),
        Key("StopSignal", _DIRECT, _LAST, "--stop-signal", "StopSignal"),
        Key("StopTimeout", _DIRECT, _LAST, "--stop-timeout", "StopTimeout, before TimeoutStopSec="),
        Key("SubGIDMap", _IMPOSSIBLE, _LAST, "--subgidname", _MAPS, "leave it out"),
        Key("SubUIDMap", _IMPOSSIBLE, _LAST, "--subuidname", _MAPS, "leave it out"),
        Key("Sysctl", _DIRECT, _WORDS, "--sysctl", "HostConfig.Sysctls"),
        Key("Timezone", _EMULATED, _LAST, "--tz", "TZ, and the zone's file at /etc/localtime"),
        Key("Tmpfs", _DIRECT, _LINES, "--tmpfs", "HostConfig.Tmpfs"),
        Key("UIDMap", _IMPOSSIBLE, _WORDS, "--uidmap", _MAPS, "give the user by User="),
        Key("Ulimit", _DIRECT, _LINES, "--ulimit", "HostConfig.Ulimits"),
        Key("Unmask", _DIRECT, _ARGUMENTS, "--security-opt unmask=", "HostConfig.MaskedPaths and ReadonlyPaths"),
        Key("User", _DIRECT, _LAST, "--user", "User"),
        Key(
            "UserNS",
            _LIMITED,
            _LAST,
            "--userns",
            "its values but host have no effect: " + _MAPS,
            "UserNS=host, or leave it out",
        ),
        Key("VolatileTmp", _DIRECT, _YES_NO, "--tmpfs /tmp:rw,size=512M,mode=1777", "HostConfig.Tmpfs"),
        Key("Volume", _DIRECT, _LINES, "-v", "HostConfig.Mounts, or Binds where relabelling is asked"),
        Key("WorkingDir", _DIRECT, _LAST, "--workdir", "WorkingDir"),
    )
)

VOLUME = _table(
    (
        Key(
            "ContainersConfModule", _LIMITED, _LINES, "--module, before volume", "it has no effect", "leave it out"
        ),
        Key("Copy", _DIRECT, _YES_NO, "--opt copy or nocopy", "VolumeOptions.NoCopy"),
        Key("Device", _DIRECT, _LAST, "--opt device=", "DriverOpts.device"),
        Key("Driver", _DIRECT, _LAST, "--driver", "Driver; image is podman's alone"),
        Key("GID", _DIRECT, _LAST, "--gid", "DriverOpts.o, gid="),
        Key("GlobalArgs", _LIMITED, _ARGUMENTS, "before volume", "it has no effect", "leave it out"),
        Key("Group", _DIRECT, _LAST, "--opt o=gid=", "DriverOpts.o, gid="),
        Key(
            "Image",
            _IMPOSSIBLE,
            _LAST,
            "--opt image=",
            "the Docker Engine makes no volume of an image",
            "copy what is in it into a volume",
        ),
        Key("Label", _DIRECT, _PAIRS, "--label", "Labels"),
        Key("Options", _DIRECT, _LAST, "--opt o=", "DriverOpts.o"),
        Key("PodmanArgs", _LIMITED, _ARGUMENTS, "before the name", "it has no effect", "use the keys of [Volume]"),
        Key("ServiceName", _LIMITED, _LAST, "names the service", "it has no effect: a volume is no unit here"),
        Key("Type", _DIRECT, _LAST, "--opt type=", "DriverOpts.type"),
        Key("UID", _DIRECT, _LAST, "--uid", "DriverOpts.o, uid="),
        Key("User", _DIRECT, _LAST, "--opt o=uid=", "DriverOpts.o, uid="),
        Key("VolumeName", _DIRECT, _LAST, "the name", "its name, else systemd- and that of the file"),
    )
)

NETWORK = _table(
    (
        Key(
            "ContainersConfModule",
            _LIMITED,
            _LINES,
            "--module, before network",
            "it has no effect",
            "leave it out",
        ),
        Key("DNS", _LIMITED, _LINES, "--dns", "it has no effect", "DNS= in [Container]"),
        Key(
            "DisableDNS",
            _LIMITED,
            _YES_NO,
            "--disable-dns",
            "it has no effect: the Engine answers for every network's names",
            "leave it out",
        ),
        Key("Driver", _DIRECT, _LAST, "--driver", "Driver"),
        Key("Gateway", _DIRECT, _LINES, "--gateway", "IPAM.Config.Gateway"),
        Key("GlobalArgs", _LIMITED, _ARGUMENTS, "before network", "it has no effect", "leave it out"),
        Key("IPAMDriver", _DIRECT, _LAST, "--ipam-driver", "IPAM.Driver"),
        Key("IPRange", _DIRECT, _LINES, "--ip-range", "IPAM.Config.IPRange"),
        Key("IPv6", _DIRECT, _YES_NO, "--ipv6", "EnableIPv6"),
        Key("InterfaceName", _DIRECT, _LAST, "--interface-name", "the option com.docker.network.bridge.name"),
        Key("Internal", _DIRECT, _YES_NO, "--internal", "Internal"),
        Key("Label", _DIRECT, _PAIRS, "--label", "Labels"),
        Key(
            "NetworkDeleteOnStop",
            _LIMITED,
            _YES_NO,
            "ExecStopPost=podman network rm",
            "it has no effect: units of the machine share the network, and it stays",
            "leave it out",
        ),
        Key("NetworkName", _DIRECT, _LAST, "the name", "its name, else systemd- and that of the file"),
        Key("Options", _DIRECT, _PAIRS, "--opt", "Options"),
        Key(
            "PodmanArgs", _LIMITED, _ARGUMENTS, "before the name", "it has no effect", "use the keys of [Network]"
        ),
        Key("ServiceName", _LIMITED, _LAST, "names the service", "it has no effect: a network is no unit here"),
        Key("Subnet", _DIRECT, _LINES, "--subnet", "IPAM.Config.Subnet"),
    )
)

KEYS = {"Container": CONTAINER, "Volume": VOLUME, "Network": NETWORK}

# Read into the spec, and refused at submission until a driver carries them out: what is taken and then ignored
# is worse than what is refused. Whoever makes the driver do one takes it out of here.
UNENFORCED = frozenset(
    (
        # direct
        "Annotation AppArmor DNSOption DNSSearch ExposeHostPort GroupAdd IP IP6 Mask NetworkAlias NoNewPrivileges "
        "SeccompProfile SecurityLabelDisable SecurityLabelLevel SecurityLabelType Sysctl Unmask UserNS=host "
        # emulated
        "AutoUpdate EnvironmentHost HealthLogDestination HealthMaxLogCount HealthMaxLogSize HealthOnFailure "
        "HealthStartupCmd HealthStartupInterval HealthStartupRetries HealthStartupSuccess HealthStartupTimeout "
        "HttpProxy Notify=yes Pod ReadOnlyTmpfs ReloadCmd ReloadSignal Retry RetryDelay ServiceName StartWithPod "
        "Timezone"
    ).split()
)
