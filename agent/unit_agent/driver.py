"""What an agent asks of a driver: `docker`, `process`, later `systemd`; and the fake that simulations use.

A driver holds at most one *copy* of a unit. Copies outlive the agent: after a restart `list` finds them again
by what is written on them (labels, or the supervisor's directory), and they are adopted as they are. A driver
touches nothing that it did not make for this cluster and machine. It restarts by the unit's `Restart=` on its
own (`CopyPhase.RESTARTING` meanwhile); everything else is decided by `unit_agent.reconcile`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from unit_agent.output import Limit, OutputBatch
from unitfleet.errors import DriverError
from unitfleet.model import Cause, CopyPhase, Placement, Port
from unitfleet.spec import UnitSpec

MOST_OUTPUT = 4096
"""Characters of a command's output that `Driver.execute` returns."""

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
    own_address: str = ""  # where this host reaches the copy's own ports; "": nowhere
    ports: tuple[Port, ...] = ()
    image: str = ""
    since: float = 0.0
    restarts: int = 0
    cause: Cause = Cause.NONE
    oom_kills: int = 0  # processes that the kernel killed for memory in this run, outlived by the main one
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
class Marks:
    """What tells a copy's processes on this host, known before there are any: any one of these is enough.

    `groups` are parts of their control groups' paths, `variables` stand in their environment as `NAME=value`.
    `container` is what the Engine at the socket `engine` calls it; both "" for a copy that is none.
    """

    groups: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    container: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """A placement with its unit text read: what a driver is to make."""

    placement: Placement
    spec: UnitSpec
    credentials: str = ""  # the directory with the files of its secrets, as they are written
    since: float = float("inf")  # loop time when it was taken in hand; what was found out since holds for it


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a long preparation: `percent` -1: not known; `layers`: `3 of 7 layers` of an image."""

    phase: CopyPhase
    percent: int
    message: str = ""
    layers: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a unit's output. `at` is seconds since 1970; stream: stdout | stderr."""

    at: float
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a copy that ended, for a look. `exit_code` None: not known. Sizes are bytes.

    `inspect` is the driver's own account of it, without any value of the environment. `health` holds the outputs
    of the container's own health command, oldest first: when (seconds since 1970), exit code, output.
    """

    exit_code: int | None = None
    oom_killed: bool = False
    started: float = 0.0
    finished: float = 0.0
    size: int = 0  # beside its image
    health: tuple[tuple[float, int, str], ...] = ()
    inspect: Mapping[str, Any] = field(default_factory=dict)


class OutputUnreadable(DriverError):
    """The output of a copy goes where it can't be read: trying again is of no use while the copy is the same."""


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

    async def find(self, unit: str) -> Copy | None:
        """Look for the unit's copy by its name: what settles it when `list` left out one that was seen before.

        Raises `DriverError` if it can't be known.
        """
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

    async def marks(self, unit: str) -> Marks:
        """Return what tells the processes of the created copy. Raises `DriverError` when there is no copy."""
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

    async def execute(self, unit: str, words: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a command where the copy runs, as it does: its user, environment and directory, or its container.

        Returns the exit code and at most `MOST_OUTPUT` characters of what it wrote. What takes longer than
        `timeout_s` is killed with all it started. Raises `DriverError` when it did not end or could not be run,
        and for a copy that does not run.
        """
        ...

    async def fail(self, unit: str, why: str, *, again: bool) -> None:
        """End a running copy as one that broke, with cause `health`; one that does not run is left alone.

        With `again` its `Restart=`, back-off and start limit say what follows; without, it is FAILED for good.
        """
        ...

    async def examine(self, unit: str) -> Remains:
        """Return what a copy that ended shows. Raises `DriverError` when none is here."""
        ...

    async def keep(self, unit: str, scene: str, directory: str) -> str:
        """Set a copy that ended aside in place of `remove`; return what it is called now.

        It is no copy any more: `list` does not show it and nothing starts it. `scene` names it, twelve hexadecimal
        digits; files of it go into `directory`, which is there.
        """
        ...

    async def discard(self, copy_id: str, scene: str) -> None:
        """Remove what `keep` has set aside outside its directory; nothing there is fine."""
        ...

    def events(self) -> AsyncGenerator[str, None]:
        """Yield the name of each unit whose copy changed; "" when anything may have: list again.

        The first is "": from then on no change goes unheard. Raises `DriverError` when nothing more can be heard.
        """
        ...

    def logs(self, unit: str, *, lines: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        """Yield the last `lines` lines (0: none) of the unit's output, and with `follow` what comes."""
        ...

    def output(self, unit: str, mark: str, limit: Limit | None = None) -> AsyncGenerator[OutputBatch, None]:
        """Yield all that the copy wrote behind a mark, and what it writes, each batch with the mark behind it.

        Nothing is left out or given twice across restarts of the copy, of the agent and of what the driver works
        through; what the driver itself let go of before it was read is told by a line of the stream `gap`. "", or
        a mark of another copy, is the beginning. A driver may leave out what the limit drops, and count it there;
        a batch that is empty has its mark all the same. It ends when the copy is removed and all was given. Raises
        `OutputUnreadable` when the copy's output goes where it can't be read, `DriverError` to be tried again.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; copies run on."""
        ...
