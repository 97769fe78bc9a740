"""What an agent asks of a driver: `docker`, `process`, later `systemd`; and the fake that simulations use.

A driver holds at most one *copy* of a unit. Copies outlive the agent: after a restart `list` finds them again
by what is written on them (labels, or the supervisor's directory), and they are adopted as they are. A driver
touches nothing that it did not make for this cluster and machine. It restarts by the unit's `Restart=` on its
own (`CopyPhase.RESTARTING` meanwhile); everything else is decided by `unit_agent.reconcile`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unitfleet.model import CopyPhase, Placement, Port
from unitfleet.spec import UnitSpec

SYSTEM_WORDS = {
    CopyPhase.LOADED: ("inactive", "dead"),
    CopyPhase.STARTING: ("activating", "start"),
    CopyPhase.RUNNING: ("active", "running"),
    CopyPhase.STOPPING: ("deactivating", "stop-sigterm"),
    CopyPhase.RESTARTING: ("activating", "auto-restart"),
    CopyPhase.FINISHED: ("inactive", "dead"),
    CopyPhase.FAILED: ("failed", "failed"),
}
"""systemd's active and sub state of a phase, for drivers that have no words of their own."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a unit that this machine holds. The first seven fields stand on the copy itself."""

    unit: str
    driver: str
    id: str  # container id, or the supervisor's directory name
    spec: str
    incarnation: str
    epoch: int  # of the placement it was created for
    restart: int
    phase: CopyPhase  # LOADED: created, not started (nor since the host booted)
    active: str = "inactive"
    sub: str = "dead"
    health: str = ""
    pid: int = 0
    address: str = ""
    ports: tuple[Port, ...] = ()
    image: str = ""
    since: float = 0.0
    restarts: int = 0
    message: str = ""

    @property
    def executing(self) -> bool:
        """Whether a process of it may exist."""
        return self.phase in (
            CopyPhase.STARTING,
            CopyPhase.RUNNING,
            CopyPhase.STOPPING,
            CopyPhase.RESTARTING,
        )


@dataclass(frozen=True, slots=True)
class Order:
    """A placement with its unit text read: what a driver is to make."""

    placement: Placement
    spec: UnitSpec


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a long preparation: `percent` is -1 when it can't be known."""

    phase: CopyPhase
    percent: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a unit's output. `at` is seconds since 1970; stream: stdout | stderr."""

    at: float
    stream: str
    text: str


Report = Callable[[Progress], None]


class Driver(Protocol):
    """Runs copies of units. Every call is safe to repeat; one unit's calls never overlap.

    Failures are `DriverError` with a message for the user. A cancelled call leaves a state that `list` tells.
    """

    @property
    def name(self) -> str:
        """`docker`, `process`, …, as it stands in a machine's presence."""
        ...

    async def list(self) -> Sequence[Copy]:
        """Return every copy this machine holds, running or not. Raises `DriverError` if it can't be known."""
        ...

    async def prepare(self, order: Order, report: Report) -> str:
        """Do what can be done before an old copy stops (pull), and return the image digest, or ""."""
        ...

    async def create(self, order: Order) -> Copy:
        """Make the copy, not started. One with the same identity that is there already is returned."""
        ...

    async def start(self, order: Order) -> Copy:
        """Start the created copy; return once it is active (systemd's meaning, by `Type=`), or failed.

        A copy that could not start is returned with phase FAILED (or RESTARTING) and its message.
        """
        ...

    async def stop(self, unit: str) -> None:
        """Stop the copy as its own text says (ExecStop, signals, timeouts); return when no process is left.

        Works without its unit text at hand: what is needed to stop is kept with the copy. Raises
        `DriverError` when something of it can't be ended.
        """
        ...

    async def remove(self, unit: str) -> None:
        """Remove what is left of a stopped copy; nothing there is fine."""
        ...

    def events(self) -> AsyncGenerator[str, None]:
        """Yield the name of each unit whose copy changed; "" when anything may have: list again.

        The first is "": from then on no change goes unheard. Raises `DriverError` when nothing more can be heard.
        """
        ...

    def logs(self, unit: str, *, lines: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        """Yield the last `lines` lines (0: none) of the unit's output, and with `follow` what comes."""
        ...

    async def close(self) -> None:
        """Let go of connections; copies run on."""
        ...
