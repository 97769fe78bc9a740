"""What a driver is told to run: the effective values of a unit text, after systemd's and Quadlet's rules.

`unitfleet.accept.read` makes a `UnitSpec` of a unit's name and text; drivers and the supervisor carry it out.
Durations are seconds; `None` as a timeout means infinity. `$VAR` in `Command.words` is expanded at start,
on the host, where EnvironmentFile= is read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from unitfleet.model import Bandwidth, Requirements


class ServiceType(StrEnum):
    """`Type=` (systemd.service(5))."""

    SIMPLE = "simple"
    EXEC = "exec"
    ONESHOT = "oneshot"
    NOTIFY = "notify"


class Restart(StrEnum):
    """`Restart=` (systemd.service(5))."""

    NO = "no"
    ALWAYS = "always"
    ON_SUCCESS = "on-success"
    ON_FAILURE = "on-failure"
    ON_ABNORMAL = "on-abnormal"
    ON_ABORT = "on-abort"
    ON_WATCHDOG = "on-watchdog"


class KillMode(StrEnum):
    """`KillMode=` (systemd.kill(5))."""

    CONTROL_GROUP = "control-group"
    MIXED = "mixed"
    PROCESS = "process"
    NONE = "none"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One Exec line: its words (specifiers resolved, quotes removed, `$VAR` not yet) and its prefixes."""

    words: tuple[str, ...]
    ignore_failure: bool = False  # prefix -
    argv0: str = ""  # prefix @: the second word
    literal: bool = False  # prefix : no $VAR expansion
    privileged: bool = False  # prefix + or !: User= does not apply


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A set of exit codes and signal names (`SuccessExitStatus=`)."""

    codes: tuple[int, ...] = ()
    signals: tuple[str, ...] = ()  # SIGTERM, …


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When and how fast a copy that ended is started again."""

    when: Restart = Restart.NO
    delay_s: float = 0.1  # RestartSec=, the first delay; the back-off doubles it
    limit_interval_s: float = 10.0  # StartLimitIntervalSec=
    limit_burst: int = 5  # StartLimitBurst=; 0 switches the limit off
    success: ExitStatus = ExitStatus()  # besides 0 and SIGHUP, SIGINT, SIGTERM, SIGPIPE
    prevent: ExitStatus = ExitStatus()  # RestartPreventExitStatus=
    force: ExitStatus = ExitStatus()  # RestartForceExitStatus=


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A resource limit, soft and hard, in the units of setrlimit(2); None: infinity."""

    soft: int | None
    hard: int | None


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The effective `[Service]` section."""

    type: ServiceType = ServiceType.SIMPLE
    start_pre: tuple[Command, ...] = ()
    start: tuple[Command, ...] = ()
    start_post: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    stop_post: tuple[Command, ...] = ()
    reload: tuple[Command, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    environment_files: tuple[tuple[str, bool], ...] = ()  # path, missing is fine
    working_directory: str = ""
    working_directory_optional: bool = False
    user: str = ""
    group: str = ""
    restart: RestartPolicy = RestartPolicy()
    timeout_start_s: float | None = 90.0
    timeout_stop_s: float | None = 90.0
    kill_mode: KillMode = KillMode.CONTROL_GROUP
    kill_signal: int = 15
    send_sigkill: bool = True
    remain_after_exit: bool = False
    notify_access_all: bool = False
    limits: tuple[tuple[str, Limit], ...] = ()  # NOFILE, NPROC, CORE, MEMLOCK, …


class PortSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`PublishPort=`: `host` 0 takes a free host port; `address` "" is every address."""

    container: int
    host: int = 0
    address: str = ""
    protocol: str = "tcp"


class MountSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`Volume=`, `Mount=` or `Tmpfs=`. kind: bind | volume | tmpfs; `source` "" makes an anonymous volume."""

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    options: tuple[str, ...] = ()


class HealthAction(StrEnum):
    """`HealthOnFailure=`: what the agent does to a copy that the health command found unhealthy."""

    NONE = "none"  # it is told, no more
    KILL = "kill"  # Restart= decides what becomes of it
    RESTART = "restart"
    STOP = "stop"


class StartupProbe(msgspec.Struct, frozen=True, kw_only=True):
    """`HealthStartup*=`: asked from the start on; the health command counts only once it succeeded."""

    test: tuple[str, ...]  # as in HealthSpec
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 0  # failures before the copy is restarted; 0: never
    success: int = 1  # successes in a row before the health command takes over


class HealthSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`Health*=`: the command by the shell when it is one word list `("CMD-SHELL", text)`, as Docker has it."""

    test: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    on_failure: HealthAction = HealthAction.NONE
    startup: StartupProbe | None = None
    log_destination: str = ""  # "", local: beside the copy; events_logger; or a folder of the host
    max_log_count: int = 5  # results kept; 0: all
    max_log_size: int = 500  # characters kept of a result; 0: all


class Pull(StrEnum):
    """`Pull=` (podman-container.unit(5))."""

    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"
    NEWER = "newer"


class VolumeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A `.volume` file that a unit refers to: made before its container, where none of the name is there."""

    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()  # of the driver: device, type, o
    labels: tuple[tuple[str, str], ...] = ()
    copy_up: bool = True  # Copy=: what the image has at its place is copied into it when it is new


class SubnetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`Subnet=` with the `Gateway=` and the `IPRange=` of the same position."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A `.network` file that a unit refers to: made before its container, where none of the name is there."""

    name: str
    driver: str = "bridge"
    ipam_driver: str = ""
    subnets: tuple[SubnetSpec, ...] = ()
    internal: bool = False
    ipv6: bool = False
    options: tuple[tuple[str, str], ...] = ()  # of the driver
    labels: tuple[tuple[str, str], ...] = ()


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The effective `[Container]` section, in the Docker Engine's terms. Sizes in bytes."""

    image: str
    exec: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None  # None: the image's own; (): cleared
    environment: tuple[tuple[str, str], ...] = ()
    environment_files: tuple[tuple[str, bool], ...] = ()
    ports: tuple[PortSpec, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    networks: tuple[str, ...] = ()  # (): the default bridge; host, none, or a network's name
    memory: int = 0
    shm_size: int = 0
    ulimits: tuple[tuple[str, Limit], ...] = ()
    user: str = ""  # user[:group]
    working_dir: str = ""
    hostname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    devices: tuple[tuple[str, str, str, bool], ...] = ()  # host, container, permissions, skip if absent
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    read_only: bool = False
    run_init: bool = False
    stop_signal: str = ""
    stop_timeout_s: float | None = None  # StopTimeout=; None: the unit's TimeoutStopSec=
    pids_limit: int = 0
    log_driver: str = ""
    log_options: tuple[tuple[str, str], ...] = ()
    pull: Pull = Pull.MISSING
    notify_healthy: bool = False  # Notify=healthy: started only once healthy
    container_name: str = ""
    health: HealthSpec | None = None

    # What follows is read, and refused at submission as long as its key stands in `quadlet_keys.UNENFORCED`.
    annotations: tuple[tuple[str, str], ...] = ()
    group_add: tuple[str, ...] = ()  # names or numbers; "keep-groups" is podman's alone and refused
    sysctls: tuple[tuple[str, str], ...] = ()
    userns_host: bool = False  # UserNS=host
    # how it is confined
    no_new_privileges: bool = False
    apparmor: str = ""  # a profile's name, or unconfined
    seccomp_profile: str = ""  # the absolute path of a profile on the host, or unconfined
    security_labels: tuple[str, ...] = ()  # SELinux, the words of `label=`: disable, type:t, level:l
    masked: tuple[str, ...] = ()  # Mask=: hidden besides what the Engine hides
    unmasked: tuple[str, ...] = ()  # Unmask=: ALL, or paths (with globs) that are neither hidden nor read-only
    read_only_tmpfs: bool | None = None  # ReadOnlyTmpfs=; None: not said; podman's own is yes under ReadOnly=yes
    # network; the names of this machine's resolver
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()  # ExposeHostPort=: "80/tcp", "2000-3000/udp"
    ip: str = ""  # in the one network of Network=
    ip6: str = ""
    network_aliases: tuple[str, ...] = ()
    made_volumes: tuple[VolumeSpec, ...] = ()  # of Volume=x.volume; its mount names the volume
    made_networks: tuple[NetworkSpec, ...] = ()  # of Network=x.network; `networks` names it
    pod: str = ""  # Pod=: the pod's name without .pod; its members share a network namespace
    start_with_pod: bool = True
    # environment
    environment_host: bool = False  # EnvironmentHost=: the agent's own variables, below all others
    http_proxy: bool | None = None  # HttpProxy=: the agent's http_proxy, https_proxy, … ; None: not said
    timezone: str = ""  # Timezone=: local, or a name of the zone database
    # image and life
    auto_update: str = ""  # AutoUpdate=: registry or local: a new digest of the tag replaces the copy
    pull_retries: int | None = None  # Retry=, RetryDelay=; None: the agent's own
    pull_retry_delay_s: float | None = None
    notify_socket: bool = False  # Notify=yes: the container itself sends READY=1 to NOTIFY_SOCKET
    reload_command: tuple[str, ...] = ()  # ReloadCmd=: run in the container by a reload
    reload_signal: str = ""  # ReloadSignal=, as SIGHUP; at most one of the two
    service_name: str = ""  # ServiceName=: what the unit is called instead, without .service


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy may use at most, or by weight (systemd.resource-control(5)); 0: not said.

    Block device limits are (path, amount a second); weights go from 1 to 10000, 100 is everybody's.
    """

    memory_max: int = 0  # bytes
    memory_max_percent: float = 0.0  # of the machine's memory, in place of bytes
    memory_swap_max: int | None = None  # bytes besides memory; None: not said, -1: infinity
    cpu_quota: float = 0.0  # cores
    cpu_weight: int = 0
    tasks_max: int = 0
    io_weight: int = 0
    io_read_bytes: tuple[tuple[str, int], ...] = ()
    io_write_bytes: tuple[tuple[str, int], ...] = ()
    io_read_ops: tuple[tuple[str, int], ...] = ()
    io_write_ops: tuple[tuple[str, int], ...] = ()


class SecretSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`Secret=`: a file with a secret's value. `target`: its path in the container, or its name in the directory.

    `uid` and `gid` None: the unit's own user and group.
    """

    name: str
    target: str
    uid: int | None = None
    gid: int | None = None
    mode: int = 0o400


class CheckKind(StrEnum):
    """How `Check=` asks."""

    HTTP = "http"
    TCP = "tcp"
    EXEC = "exec"


class CheckSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`Check=` and its timings: the agent asks, in place of the container's own health command.

    `target` is a URL (http, https), `host:port` (tcp) or the command's text (exec, run in the container). Ports
    are the copy's own, as it would see them; the agent finds the way to them.
    """

    kind: CheckKind
    target: str
    words: tuple[str, ...] = ()  # of an exec check
    interval_s: float = 10.0
    timeout_s: float = 5.0
    retries: int = 3
    start_period_s: float = 0.0


class OnFailure(StrEnum):
    """`OnFailure=` in `[X-Fleet]`: what becomes of a copy that failed for good."""

    RESTART = "restart"
    KEEP = "keep"  # it stays as it was, for a look


class LogSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`LogFiles=` (globs of absolute paths in the container) and `LogSink=` (names of the agent's sinks)."""

    files: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()  # (): the agent's own choice


class UnitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A unit text, read: what it asks of a machine and what its driver is to run."""

    name: str
    description: str
    requirements: Requirements
    service: ServiceSpec
    container: ContainerSpec | None = None  # set: the docker driver runs it
    limits: ResourceLimits = ResourceLimits()
    bandwidth: Bandwidth = Bandwidth()
    check: CheckSpec | None = None
    on_failure: OnFailure = OnFailure.RESTART
    logs: LogSpec = LogSpec()
    secrets: tuple[SecretSpec, ...] = ()
    warm: bool = True  # Warm=: machines that could run it hold its image before they are ready
    install: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # file:line: … that did not stop us
