"""What the shipper asks of a sink, and how a sink says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unit_agent.logs.record import LogRecord
from unitfleet.errors import UnitfleetError
from unitfleet.shipped import ShippedLine, encode


class SinkUnavailable(UnitfleetError):
    """The sink can't be had now: the batch is sent again, after a pause that grows."""


class SinkRefused(UnitfleetError):
    """The sink answered no. With `of_lines` a line of the batch may be why: the shipper finds out which.

    Without, it is about the whole of it (credentials, a topic that is not there): the batch is held, told in an
    event, and sent again at a slow pace.
    """

    def __init__(self, message: str, *, of_lines: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.of_lines = of_lines


@dataclass(frozen=True, slots=True)
class Source:
    """The machine whose lines a sink carries: its id, and its name."""

    machine: str
    name: str

    def key(self, record: LogRecord) -> str:
        """Return the line's idempotent key."""
        return f"{self.machine}/{record.unit}/{record.seq}"

    def line(self, record: LogRecord) -> bytes:
        """Return the line as JSON."""
        return encode(
            ShippedLine(
                unit=record.unit,
                machine=self.machine,
                name=self.name,
                epoch=record.epoch,
                seq=record.seq,
                at=record.at,
                stream=record.stream,
                text=record.text,
                file=record.file,
            )
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How much a sink is sent at a time: when `least_lines` wait or the first of them has for `linger_s`.

    Never more than `most_lines` and about `most_bytes` of text at once, which is also what a sink holds in memory.
    """

    least_lines: int = 50
    linger_s: float = 0.5
    most_lines: int = 5000
    most_bytes: int = 1024 * 1024
    send_s: float = 30.0


class Sink(Protocol):
    """A place for lines. `send` is never called twice at once; what raised is sent again, whole."""

    @property
    def name(self) -> str:
        """What `LogSink=` calls it."""
        ...

    @property
    def pace(self) -> Pace:
        """How much it wants at a time."""
        ...

    async def send(self, batch: Sequence[LogRecord]) -> None:
        """Return once the sink has every line of the batch, in order for each unit.

        Raises `SinkUnavailable` or `SinkRefused`; any part of the batch may have arrived then.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; what was not acknowledged is sent again by the next agent."""
        ...
