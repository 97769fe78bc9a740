"""Live figures as frames: what every machine told last, beside what the leader has reserved there.

The agents push while somebody looks, the master passes it on; nothing here asks a machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from unitctl.client import Api
from unitctl.failures import INTERRUPTED, OK
from unitctl.render import Column, Style, escape, items_json, json_line, out, table
from unitctl.stream import Ended, FiguresFeed, Lost
from unitfleet.api import MachineFigures, MachineView, UnitFigures

if TYPE_CHECKING:
    from rich.text import Text

T = TypeVar("T")

REDRAW_S = 1.0
VIEWS_S = 5.0
"""How often it is looked up what is reserved."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with what it told, None when it told nothing yet."""

    view: MachineView
    figures: MachineFigures | None

    @property
    def why(self) -> str:
        """Why there are no figures, "" when there are."""
        if self.figures is None:
            return f"is {self.view.status}" if self.view.status in ("lost", "suspect") else "has not told yet"
        return self.figures.why


@dataclass(frozen=True, slots=True)
class Copy:
    """What a copy of a unit uses, on the machine of this name."""

    machine: str
    figures: UnitFigures


@dataclass(slots=True)
class Frame:
    """Everything as it was told last. `trouble` is why nothing comes now, or ""."""

    views: tuple[MachineView, ...] = ()
    told: dict[str, MachineFigures] = field(default_factory=dict)
    trouble: str = ""

    def machines(self) -> list[Machine]:
        """Return every machine, by name; those that are lost last."""
        found = [Machine(view, self.told.get(view.id)) for view in self.views]
        return sorted(found, key=lambda each: (each.view.status == "lost", each.view.name, each.view.id))

    def copies(self) -> list[Copy]:
        """Return every copy that its machine told of."""
        return [
            Copy(machine.view.name, unit)
            for machine in self.machines()
            if machine.figures is not None
            for unit in machine.figures.units
        ]


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a screen; of a `clipped` one the last rows are left out where the screen ends."""

    columns: Sequence[Column[object]]
    rows: Sequence[object]
    clipped: bool = False


def part(columns: Sequence[Column[T]], rows: Sequence[T], *, clipped: bool = False) -> Part:
    """Make a table of rows of any kind."""
    return Part(columns, rows, clipped)  # type: ignore[arg-type]


Draw = Callable[[Frame], Sequence[Part]]


def one_frame(api: Api) -> Frame:
    """Return what every machine tells now."""
    _, views = api.machines()
    return Frame(views, {line.machine: line for line in api.figures()})


def write(frame: Frame, draw: Draw, style: Style) -> None:
    """Write a frame as plain tables."""
    for number, each in enumerate(draw(frame)):
        if number:
            out("")
        for line in table(each.columns, each.rows, style):
            out(line)


def present(api: Api, draw: Draw, style: Style, title: Callable[[Frame], str], *, output: str, once: bool) -> int:
    """Show figures as `-o` has it: live on a terminal, else one frame; returns the exit code."""
    if output == "table" and not once and style.terminal:
        return watch(api, draw, style, title)
    frame = one_frame(api)
    if output == "table":
        write(frame, draw, style)
    elif output == "json":
        out(items_json(0, as_items(frame)))
    else:
        for item in as_items(frame):
            out(json_line(item))
    return OK


def watch(api: Api, draw: Draw, style: Style, title: Callable[[Frame], str]) -> int:
    """Redraw the screen as figures come, until ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not style.on, highlight=False, file=sys.stdout)
    feed = FiguresFeed(api.transport)
    frame = Frame()
    frame.views = api.machines()[1]
    looked_at = drawn_at = time.monotonic()
    feed.start()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            live.update(screen(frame, draw, style, title(frame), console.height), refresh=True)
            while True:
                _take(frame, feed)
                now = time.monotonic()
                if now - looked_at >= VIEWS_S:
                    frame.views, looked_at = _views(api, frame), now
                if now - drawn_at >= REDRAW_S:
                    live.update(screen(frame, draw, style, title(frame), console.height), refresh=True)
                    drawn_at = now
    except KeyboardInterrupt:
        return INTERRUPTED if style.terminal else OK
    finally:
        feed.close()


def _take(frame: Frame, feed: FiguresFeed) -> None:
    match feed.next(REDRAW_S / 4):
        case MachineFigures() as line:
            frame.told[line.machine] = line
            frame.trouble = ""
        case Lost(error=error):
            frame.trouble = f"{error.message}; trying again"
        case Ended(error=error):
            raise error


def _views(api: Api, frame: Frame) -> tuple[MachineView, ...]:
    from unitfleet.errors import UnitfleetError

    try:
        return api.machines()[1]
    except UnitfleetError as error:
        frame.trouble = error.message
        return frame.views


def screen(frame: Frame, draw: Draw, style: Style, title: str, height: int) -> Text:
    """Return a frame as it fits on a screen of `height` lines; what is left out is counted."""
    from rich.text import Text

    lines = [style.paint(escape(title), "bold")]
    if frame.trouble:
        lines.append(style.paint(escape(frame.trouble), "yellow"))
    for each in draw(frame):
        found = table(each.columns, each.rows, style)
        room = height - len(lines) - 2
        if each.clipped and len(found) > room > 1:
            left = len(found) - room + 1
            found = [*found[: room - 1], style.paint(f"and {left} more", "dim")]
        lines += ["", *found]
    return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="ellipsis")


def as_items(frame: Frame) -> list[dict[str, object]]:
    """Return each machine's figures with what is reserved there, for `-o json`."""
    import msgspec

    items: list[dict[str, object]] = []
    for machine in frame.machines():
        figures = machine.figures
        told: dict[str, object] = msgspec.to_builtins(figures) if figures is not None else {}
        items.append(
            {
                **told,
                "machine": machine.view.id,
                "name": machine.view.name,
                "status": machine.view.status,
                "reserved": msgspec.to_builtins(machine.view.reserved),
                "capacity": msgspec.to_builtins(machine.view.capacity),
                "why": machine.why,
            }
        )
    return items
