"""What `unit-agent` can be told: in its file, by `UNITFLEET_*`, by flags."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from os import geteuid
from pathlib import Path
from socket import gethostname

from unit_agent import policy as policies
from unit_agent.logs.rate import Rate
from unit_agent.logs.retention import Limits
from unit_agent.logs.sinks import address as sinks
from unitfleet import keyfile
from unitfleet.config import option
from unitfleet.errors import InvalidConfig, InvalidName
from unitfleet.etcd import credentials
from unitfleet.listening import split_address
from unitfleet.logs import LogFormat, LogLevel
from unitfleet.names import validate_machine_name
from unitfleet.policy import Policy
from unitfleet.problems import BadValue
from unitfleet.profiles import Profile
from unitfleet.quadlet import image_reference
from unitfleet.quantities import size
from unitfleet.rates import rate
from unitfleet.timespan import parse_finite

DRIVERS = ("process", "docker")
ETCD = ("127.0.0.1:2379",)


class ShapeUplink(StrEnum):
    """`--shape-uplink`: whether the uplink's qdisc may be ours while a unit here needs it."""

    AUTO = "auto"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Runs the units that are placed on this host, and reports what it sees of them."""

    etcd: tuple[str, ...] = option("HOST:PORT,…", "members of the etcd cluster; as joining told, else", ETCD)
    state_dir: Path = option("DIR", "identity and local copy", Path("/var/lib/unitfleet/agent"))
    name: str = option("NAME", "this machine's name", gethostname().split(".")[0])
    metadata: dict[str, str] = option("K=V,…", "what units can ask for in MachineMetadata=", {})
    address: str = option("ADDRESS", "where others reach this host (default: its way to the world)", "")
    listen: str = option("ADDRESS:PORT", "where masters ask this agent; port 0 takes a free one", "0.0.0.0:0")
    socket: str = option("PATH", "Unix socket for this host; empty for none", "/run/unitfleet/agent.sock")
    policy: str = option("FILE", f"what units may ask of this host (default: {policies.DEFAULT}, if there)", "")
    secrets_dir: Path = option("DIR", "where units find their secrets; a tmpfs", Path("/run/unitfleet/secrets"))
    strict_dir: Path = option("DIR", "deadlines of strict units; a tmpfs", Path("/run/unitfleet/strict"))
    drivers: tuple[str, ...] = option("process,docker|auto", "auto: docker once its Engine answers", ("auto",))
    docker_socket: str = option("PATH", "the Docker Engine's socket", "/var/run/docker.sock")
    cluster_key_file: str = option("PATH", "the key that masters show; without it they are refused", "")
    tls_dir: str = option("DIR", "this machine's identity (default: tls in the state dir)", "")
    join: str = option("TOKEN", "join token by which this machine gets its identity, once", "")
    join_file: str = option("PATH", "the same in a file, which others can't read in a process list", "")
    etcd_ca: str = option("FILE", "the authority of etcd's members, as PEM: they are asked by TLS", "")
    etcd_cert: str = option("FILE", "the certificate that is shown to etcd", "")
    etcd_key: str = option("FILE", "its key", "")
    metrics_token_file: str = option("PATH", "a token that opens /metrics alone, for Prometheus", "")
    profile: Profile = option("default|fast|fastest", "how soon this host's death is noticed", Profile.DEFAULT)
    egress: str = option("RATE", "bit/s that units may send, as 1G (default: the uplink's speed)", "")
    ingress: str = option("RATE", "bit/s that units may get, as 1G (default: the uplink's speed)", "")
    shape_uplink: ShapeUplink = option(
        "auto|never", "auto: the uplink gets our qdisc while a unit here needs it", ShapeUplink.AUTO
    )
    pull_limit: str = option(
        "RATE|none|auto", "bit/s of image pulls, as 300M; auto: half of --ingress or of the uplink's speed", "auto"
    )
    drain_on_notice: bool = option("", "have this host drained when EC2 tells that it is to end", False)
    imds: str = option("URL", "where EC2 tells it (default: http://169.254.169.254)", "")
    disk_full: int = option("PERCENT", "used of a disk from which this host takes no new units", 90)
    inodes_full: int = option("PERCENT", "the same of its inodes", 95)
    cgroupspy: bool = option("", "read control groups v1 by the package cgroupspy", False)
    starts_at_once: int = option("N", "units that are started at the same time", 8)
    pulls_at_once: int = option("N", "images that are pulled at the same time", 2)
    warm: tuple[str, ...] = option("IMAGE,…", "images that this host holds before it takes units", ())
    warm_timeout: str = option("TIME", "a new host is ready after this long, warm or not", "10min")
    image_gc: int = option("PERCENT", "used of Docker's disk from which unused images are removed; 0: never", 80)
    image_gc_all: bool = option("", "remove unused images too that this agent has not pulled", False)
    registry_auth: str = option("FILE", "registry credentials (default: Docker's config.json on this host)", "")
    scenes_max: int = option("N", "failed copies that are kept for a look (OnFailure=keep)", 3)
    scenes_mib: int = option("MIB", "what they may hold together", 2048)
    log_sinks: tuple[str, ...] = option("URL,…", "where units' output is shipped, docs/logs.md", ("store:",))
    log_unit_max: str = option("SIZE", "what is kept on disk of one unit's output", "64M")
    log_max: str = option("SIZE", "what is kept on disk of all output", "2G")
    log_age: str = option("TIME", "how long output is kept", "7d")
    log_rate: str = option("LINES,SIZE", "a second of one unit's output; what exceeds it is dropped", "50000,32M")
    log_format: LogFormat = option("text|json", "how log lines look", LogFormat.TEXT)
    log_level: LogLevel = option("debug|info|warning|error", "what is logged", LogLevel.INFO)

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not self.etcd:
            raise InvalidConfig("cannot use etcd: no endpoint is named", hint="--etcd 127.0.0.1:2379")
        try:
            validate_machine_name(self.name)
        except InvalidName as error:
            raise InvalidConfig(f"cannot use name: {error}", hint=error.hint) from error
        unknown = sorted(set(self.drivers) - {*DRIVERS, "auto"})
        if unknown or not self.drivers or ("auto" in self.drivers and len(self.drivers) > 1):
            raise InvalidConfig(
                f"cannot use drivers: {', '.join(unknown or self.drivers) or 'none is named'}",
                hint=f"auto, or any of {', '.join(DRIVERS)}",
            )
        if self.starts_at_once < 1:
            raise InvalidConfig(f"cannot use starts-at-once: {self.starts_at_once} is less than 1")
        if self.pulls_at_once < 1:
            raise InvalidConfig(f"cannot use pulls-at-once: {self.pulls_at_once} is less than 1")
        if self.image_gc and not 20 <= self.image_gc <= 99:
            raise InvalidConfig(f"cannot use image-gc: {self.image_gc} is not from 20 to 99", hint="0 for never")
        _ = self.warm_timeout_s
        for image in self.warm:
            _image(image)
        for name, percent in (("disk-full", self.disk_full), ("inodes-full", self.inodes_full)):
            if not 1 <= percent <= 100:
                raise InvalidConfig(f"cannot use {name}: {percent} is no percentage", hint="1 to 100")
        _ = self.egress_rate, self.ingress_rate, self.pull_limit_rate
        if self.scenes_max < 0 or self.scenes_mib < 0:
            raise InvalidConfig("cannot use scenes-max and scenes-mib: both are at least 0", hint="0 keeps none")
        for endpoint in self.etcd:
            split_address(endpoint, "etcd")
        sinks.read(self.log_sinks)
        credentials.check(self.etcd_ca, self.etcd_cert, self.etcd_key)
        _ = self.listen_address, self.log_limits, self.log_rate_cap, self.host_policy

    def cluster_key(self) -> str:
        """Read the key that masters show, "" where none is named; raises `InvalidConfig`."""
        hint = "copy the key that the masters use: cluster.key in their state"
        return keyfile.read(Path(self.cluster_key_file), hint) if self.cluster_key_file else ""

    def metrics_token(self) -> str:
        """Read the token of Prometheus, "" where none is named; raises `InvalidConfig`."""
        hint = "copy the token that Prometheus and the masters have"
        return keyfile.read(Path(self.metrics_token_file), hint) if self.metrics_token_file else ""

    @property
    def tls_path(self) -> Path:
        """Where this machine's identity lies."""
        return Path(self.tls_dir) if self.tls_dir else self.state_dir / "tls"

    @property
    def has_tls(self) -> bool:
        """Whether this machine has an identity, or is to have one."""
        return bool(self.tls_dir or self.join or self.join_file) or (self.tls_path / "cert.pem").exists()

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of the listener."""
        return split_address(self.listen, "listen")

    @property
    def host_policy(self) -> Policy | None:
        """What units may ask of this host, as its file says now; None: there is none."""
        return policies.read(self.policy, root=geteuid() == 0)

    @property
    def egress_rate(self) -> int:
        """What units may send together, bit/s; 0: what the uplink says of itself."""
        return _rate("egress", self.egress)

    @property
    def ingress_rate(self) -> int:
        """What units may get together, bit/s; 0: what the uplink says of itself."""
        return _rate("ingress", self.ingress)

    @property
    def pull_limit_rate(self) -> int | None:
        """What the Engine may pull images with, bit/s; 0: as much as there is, None: half of the uplink."""
        if self.pull_limit in ("", "auto"):
            return None
        return 0 if self.pull_limit in ("0", "none") else _rate("pull-limit", self.pull_limit)

    @property
    def warm_timeout_s(self) -> float:
        """How long a new host may take to become warm; 0: it does not wait."""
        try:
            return parse_finite(self.warm_timeout)
        except BadValue as error:
            raise InvalidConfig(f"cannot use warm-timeout: {error}", hint="10min, or 0 not to wait") from error

    @property
    def log_limits(self) -> Limits:
        """Bounds of the output that is kept on disk."""
        try:
            found = Limits(size(self.log_unit_max), size(self.log_max), parse_finite(self.log_age))
        except BadValue as error:
            raise InvalidConfig(f"cannot use log-unit-max, log-max and log-age: {error}") from error
        if not 0 < found.unit_bytes <= found.total_bytes or not found.age_s:
            hint = "log-unit-max is at most log-max, and none of them is 0"
            raise InvalidConfig("cannot use log-unit-max, log-max and log-age: nothing could be kept", hint=hint)
        return found

    @property
    def log_rate_cap(self) -> Rate:
        """What is taken of one unit's output in a second."""
        return Rate.read(self.log_rate)

    def may_use(self, driver: str) -> bool:
        """Tell whether this driver is asked for, by name or by auto."""
        return driver in self.drivers or "auto" in self.drivers


def _image(text: str) -> None:
    """Refuse what no registry could be asked for; raises `InvalidConfig`."""
    try:
        image_reference(text)
    except BadValue as error:
        raise InvalidConfig(f"cannot use warm: {error}") from error


def _rate(name: str, text: str) -> int:
    """Read an option that is a rate; raises `InvalidConfig`."""
    try:
        return rate(text) if text else 0
    except BadValue as error:
        raise InvalidConfig(f"cannot use {name}: {error}", hint="bits a second, as 300M or 1G") from error
