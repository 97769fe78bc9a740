"""Where a development cluster keeps things, and the record of what was started.

dev.json          the record                      etcd/             etcd's data
token             opens the API                   etcd-server/      an etcd that was fetched
cluster.key       opens the agents                m1/ m2/ m3/       state of the machines, their units
secrets.key       what secrets are sealed to
master-1/ …       state of the masters            NAME.log          output of each daemon
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from unitctl.dev.processes import Identity
from unitfleet.errors import InvalidConfig, NotFound, Refused

ADDRESS = "127.0.0.1"
LONGEST_SOCKET_PATH = 107  # bytes, unix(7)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`dev.json`. `processes` and `ports` by daemon; `killed`: when a machine that is off went."""

    ports: dict[str, int]
    docker_socket: str
    processes: dict[str, Identity] = {}
    killed: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Layout:
    """The state folder. It is ours when the record is in it: nothing else is ever used or removed."""

    root: Path
    is_default: bool = False

    @property
    def record_file(self) -> Path:
        return self.root / "dev.json"

    @property
    def token_file(self) -> Path:
        return self.root / "token"

    @property
    def secrets_key_file(self) -> Path:
        return self.root / "secrets.key"

    @property
    def key_file(self) -> Path:
        return self.root / "cluster.key"

    def state(self, name: str) -> Path:
        """The state directory of one daemon."""
        return self.root / name

    def log(self, name: str) -> Path:
        """The output of one daemon."""
        return self.root / f"{name}.log"

    def agent_socket(self, machine: str) -> str:
        """Where `unit-agent local` finds an agent; "" when the folder's path is too long for a socket."""
        path = str(self.state(machine) / "agent.sock")
        return path if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH else ""

    def read(self) -> Record | None:
        """Return the record, None when there is no cluster here. Raises `InvalidConfig`."""
        try:
            return msgspec.json.decode(self.record_file.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidConfig(
                f"cannot read {self.record_file}: {error}", hint="end its processes by hand and remove the folder"
            ) from error

    def write(self, record: Record) -> None:
        """Replace the record, whole or not at all."""
        draft = self.root / "dev.json.new"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        draft.replace(self.record_file)

    def make(self) -> None:
        """Make the folder; raises `Refused` when something that is not ours is in it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            others = not self.record_file.exists() and any(path.name != "lock" for path in self.root.iterdir())
        except OSError as error:
            raise InvalidConfig(f"cannot use {self.root}: {(error.strerror or str(error)).lower()}") from error
        if others:
            raise Refused(
                f"cannot use {self.root}: it holds files and no cluster of unitctl dev",
                hint="give --state an empty folder, or one that does not exist",
            )

    def record(self) -> Record:
        """Return the record; raises `NotFound` when there is no cluster here."""
        record = self.read()
        if record is None:
            raise NotFound(f"cannot find a cluster in {self.root}", hint="unitctl dev up starts one")
        return record

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder meanwhile; raises `Refused` when another command does."""
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Refused(
                f"cannot change the cluster in {self.root}: another unitctl dev works on it",
                hint="wait for its end",
            ) from error
        finally:
            os.close(lock)


def find(state: str | None, env: Mapping[str, str]) -> Layout:
    """Return the folder: `--state`, `UNITFLEET_DEV_STATE`, or `$XDG_STATE_HOME/unitfleet/dev`."""
    named = state or env.get("UNITFLEET_DEV_STATE")
    if named:
        return Layout(Path(named).expanduser().absolute())
    base = env.get("XDG_STATE_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".local/state")
    return Layout(Path(base).absolute() / "unitfleet" / "dev", is_default=True)


def docker_socket(env: Mapping[str, str]) -> str:
    """Return where a Docker Engine would answer on this host."""
    host = env.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix:///") else "/var/run/docker.sock"
