"""What `unit-agent` can be told: in its file, by `UNITFLEET_*`, by flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from unitfleet.config import option
from unitfleet.errors import InvalidConfig, InvalidName
from unitfleet.listening import split_address
from unitfleet.logs import LogFormat, LogLevel
from unitfleet.names import validate_machine_name
from unitfleet.profiles import Profile

DRIVERS = ("process", "docker")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Runs the units that are placed on this host, and reports what it sees of them."""

    etcd: tuple[str, ...] = option("HOST:PORT,…", "members of the etcd cluster", ("127.0.0.1:2379",))
    state_dir: Path = option("DIR", "identity and local copy", Path("/var/lib/unitfleet/agent"))
    name: str = option("NAME", "this machine's name", gethostname().split(".")[0])
    metadata: dict[str, str] = option("K=V,…", "what units can ask for in MachineMetadata=", {})
    address: str = option("ADDRESS", "where others reach this host (default: its way to the world)", "")
    listen: str = option("ADDRESS:PORT", "where masters ask this agent; port 0 takes a free one", "0.0.0.0:0")
    socket: str = option("PATH", "Unix socket for this host; empty for none", "/run/unitfleet/agent.sock")
    drivers: tuple[str, ...] = option("process,docker|auto", "auto: docker once its Engine answers", ("auto",))
    docker_socket: str = option("PATH", "the Docker Engine's socket", "/var/run/docker.sock")
    cluster_key_file: str = option("PATH", "the key that masters show; without it they are refused", "")
    profile: Profile = option("default|fast|fastest", "how soon this host's death is noticed", Profile.DEFAULT)
    starts_at_once: int = option("N", "units that are started at the same time", 8)
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
        for endpoint in self.etcd:
            split_address(endpoint, "etcd")
        _ = self.listen_address

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of the listener."""
        return split_address(self.listen, "listen")

    def may_use(self, driver: str) -> bool:
        """Tell whether this driver is asked for, by name or by auto."""
        return driver in self.drivers or "auto" in self.drivers
