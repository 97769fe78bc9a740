"""What `unit-master` can be told: in its file, by `UNITFLEET_*`, by flags."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from unitfleet.config import option
from unitfleet.errors import InvalidConfig, InvalidName
from unitfleet.listening import split_address
from unitfleet.logs import LogFormat, LogLevel
from unitfleet.names import validate_machine_name
from unitfleet.profiles import Profile


@dataclass(frozen=True, slots=True)
class MasterConfig:
    """Serves the API of a cluster and, when it leads, decides where its units run."""

    etcd: tuple[str, ...] = option("HOST:PORT,…", "members of the etcd cluster", ("127.0.0.1:2379",))
    listen: str = option("ADDRESS:PORT", "where the API answers by TCP; loopback only", "127.0.0.1:4001")
    socket: str = option("PATH", "Unix socket where the API answers; empty for none", "/run/unitfleet/api.sock")
    state_dir: Path = option("DIR", "where keys are kept", Path("/var/lib/unitfleet/master"))
    name: str = option("NAME", "this master's name", gethostname().split(".")[0])
    token_file: str = option("PATH", "the API's token; made if missing (default: token in the state dir)", "")
    cluster_key_file: str = option(
        "PATH", "the key that agents ask for; made if missing (default: cluster.key in the state dir)", ""
    )
    profile: Profile = option("default|fast|fastest", "how fast a machine is held dead", Profile.DEFAULT)
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
        if not self.trusted_network and not _is_loopback(host):
            raise InvalidConfig(
                f"cannot listen on {self.listen}: without TLS the API stays on loopback",
                hint="listen on 127.0.0.1, or give --trusted-network on a network that nobody else can reach",
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on; port 0 takes a free one."""
        return split_address(self.listen, "listen")

    @property
    def token_path(self) -> Path:
        """The file of the API's token."""
        return Path(self.token_file) if self.token_file else self.state_dir / "token"

    @property
    def cluster_key_path(self) -> Path:
        """The file of the cluster's key."""
        return Path(self.cluster_key_file) if self.cluster_key_file else self.state_dir / "cluster.key"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
