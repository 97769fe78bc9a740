"""What `unit-master` can be told: in its file, by `UNITFLEET_*`, by flags."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from unit_master.access.floods import Bounds, Rate
from unitfleet import identity, quantities, timespan
from unitfleet.config import option
from unitfleet.errors import InvalidConfig, InvalidName
from unitfleet.etcd import credentials
from unitfleet.listening import split_address
from unitfleet.logs import LogFormat, LogLevel
from unitfleet.names import validate_machine_name
from unitfleet.profiles import Profile

SMALLEST_LOG_STORE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MasterConfig:
    """Serves the API of a cluster and, when it leads, decides where its units run."""

    etcd: tuple[str, ...] = option("HOST:PORT,…", "members of the etcd cluster", ("127.0.0.1:2379",))
    listen: str = option("ADDRESS:PORT", "where the API answers; wider than loopback by TLS", "127.0.0.1:4001")
    socket: str = option("PATH", "Unix socket where the API answers; empty for none", "/run/unitfleet/api.sock")
    state_dir: Path = option("DIR", "where keys are kept", Path("/var/lib/unitfleet/master"))
    name: str = option("NAME", "this master's name", gethostname().split(".")[0])
    token_file: str = option("PATH", "the API's token; made if missing (default: token in the state dir)", "")
    cluster_key_file: str = option(
        "PATH", "the key that agents ask for; made if missing (default: cluster.key in the state dir)", ""
    )
    secrets_key_file: str = option(
        "PATH",
        "the key that secrets are sealed to, one for all masters; made if missing (default: secrets.key)",
        "",
    )
    metrics_token_file: str = option(
        "PATH", "a token that opens /metrics and /v1/targets alone, for Prometheus (default: none)", ""
    )
    tls_dir: str = option(
        "DIR",
        "this master's identity: ca.pem, cert.pem, key.pem (default: tls in the state dir, if it is there)",
        "",
    )
    join: str = option("TOKEN", "join token by which a further master gets its identity, once", "")
    join_file: str = option("PATH", "the same in a file, which others can't read in a process list", "")
    etcd_ca: str = option("FILE", "the authority of etcd's members, as PEM: they are asked by TLS", "")
    etcd_cert: str = option("FILE", "the certificate that is shown to etcd", "")
    etcd_key: str = option("FILE", "its key", "")
    log_store: str = option("DIR", "where units' output is kept, in the state dir; empty: nowhere", "logs")
    log_store_max: str = option("SIZE", "how much of it is kept", "5G")
    log_store_age: str = option("TIME", "for how long it is kept", "7d")
    profile: Profile = option("default|fast|fastest", "how fast a machine is held dead", Profile.DEFAULT)
    host_names: tuple[str, ...] = option(
        "NAME,…", "names, beside its own and its address, by which requests may call this master", ()
    )
    reads_per_s: int = option("N", "how many reads a second one caller may ask for by TCP", 50)
    reads_at_once: int = option("N", "how many of them at once, after a rest", 100)
    changes_per_s: int = option("N", "how many changes a second one caller may ask for by TCP", 5)
    changes_at_once: int = option("N", "how many of them at once, after a rest", 20)
    trusted_network: bool = option(
        "", "listen wider than loopback without TLS: only for a network that nobody else can reach", False
    )
    log_format: LogFormat = option("text|json", "how log lines look", LogFormat.TEXT)
    log_level: LogLevel = option("debug|info|warning|error", "what is logged", LogLevel.INFO)

    def __post_init__(self) -> None:
        """Refuse what can't work, or would open the API to strangers."""
        host, _ = self.address
        for endpoint in self.etcd:
            split_address(endpoint, "etcd")
        if not self.etcd:
            raise InvalidConfig("cannot use etcd: no endpoint is named", hint="--etcd 127.0.0.1:2379")
        try:
            validate_machine_name(self.name)
        except InvalidName as error:
            raise InvalidConfig(f"cannot use name: {error}", hint=error.hint) from error
        _ = self.log_store_bytes, self.log_store_age_s, self.bounds
        credentials.check(self.etcd_ca, self.etcd_cert, self.etcd_key)
        if not (self.trusted_network or self.has_tls or _is_loopback(host)):
            raise InvalidConfig(
                f"cannot listen on {self.listen}: without TLS the API stays on loopback",
                hint="unitctl cluster init makes an identity for TLS (--tls-dir DIR); without one listen on "
                "127.0.0.1, or give --trusted-network on a network that nobody else can reach",
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on; port 0 takes a free one."""
        return split_address(self.listen, "listen")

    @property
    def tls_path(self) -> Path:
        """Where this master's identity lies."""
        return Path(self.tls_dir) if self.tls_dir else self.state_dir / "tls"

    @property
    def has_tls(self) -> bool:
        """Whether the API is served by TLS: an identity is named, joined for, or there."""
        return bool(self.tls_dir or self.join or self.join_file) or identity.is_there(self.tls_path)

    @property
    def log_store_path(self) -> Path | None:
        """The directory of the archive, None when this master keeps none."""
        return self.state_dir / self.log_store if self.log_store else None

    @property
    def log_store_bytes(self) -> int:
        """How large the archive may grow; raises `InvalidConfig`."""
        try:
            most = quantities.size(self.log_store_max)
        except ValueError as error:
            raise InvalidConfig(f"cannot use log-store-max: {error}", hint="--log-store-max 5G") from error
        if most < SMALLEST_LOG_STORE:
            raise InvalidConfig(
                f"cannot use log-store-max: {self.log_store_max} is less than 16M", hint="--log-store-max 5G"
            )
        return most

    @property
    def log_store_age_s(self) -> float:
        """How long the archive keeps lines, in seconds; raises `InvalidConfig`."""
        try:
            age_s = timespan.parse(self.log_store_age)
        except ValueError as error:
            raise InvalidConfig(f"cannot use log-store-age: {error}", hint="--log-store-age 7d") from error
        if not age_s:
            raise InvalidConfig(
                f"cannot use log-store-age: {self.log_store_age!r} is no time", hint="--log-store-age 7d"
            )
        return age_s

    @property
    def bounds(self) -> Bounds:
        """How much one caller may ask by TCP; raises `InvalidConfig`."""
        return Bounds(
            reads=_rate("reads", self.reads_per_s, self.reads_at_once),
            writes=_rate("changes", self.changes_per_s, self.changes_at_once),
        )

    @property
    def token_path(self) -> Path:
        """The file of the API's token."""
        return Path(self.token_file) if self.token_file else self.state_dir / "token"

    @property
    def cluster_key_path(self) -> Path:
        """The file of the cluster's key."""
        return Path(self.cluster_key_file) if self.cluster_key_file else self.state_dir / "cluster.key"

    @property
    def secrets_key_path(self) -> Path:
        """The file of the key that secrets are sealed to."""
        return Path(self.secrets_key_file) if self.secrets_key_file else self.state_dir / "secrets.key"


def _rate(what: str, per_s: int, at_once: int) -> Rate:
    if per_s < 1:
        raise InvalidConfig(
            f"cannot use {what}-per-s: {per_s} is less than 1", hint="the default lets people work"
        )
    if at_once < per_s:
        raise InvalidConfig(
            f"cannot use {what}-at-once: {at_once} is less than {what}-per-s, {per_s}",
            hint=f"--{what}-at-once {2 * per_s}",
        )
    return Rate(per_s, at_once)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
