"""Telling how a command comes along: one line a phase change, or on a terminal one live line a unit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from unitctl.context import Invocation
from unitctl.phrases import UNPLACED, place, step
from unitctl.render import Style, escape, say
from unitfleet.api import UnitView

if TYPE_CHECKING:
    from rich.text import Text


_THEN = " › "  # noqa: RUF001 - an arrow head, as meant


class Narrator(Protocol):
    """Hears of every change while a command waits."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def saw(self, view: UnitView) -> None:
        """Take note of a unit as it is now."""

    def ended(self, name: str, word: str) -> None:
        """Take note that a unit has come to its goal."""

    def remark(self, text: str) -> None:
        """Say something that is no phase: why it takes long, that the connection broke."""


def narrator(invocation: Invocation, names: Sequence[str]) -> Narrator:
    """The narrator that suits where stderr goes."""
    if invocation.quiet:
        return Silent()
    if sys.stderr.isatty() and Style(sys.stderr, no_color=invocation.no_color).terminal:
        return Live(names, no_color=invocation.no_color)
    return Plain()


def new_steps(view: UnitView, before: Sequence[str]) -> list[str]:
    """What to say of a unit after what was said: its machine first, when it passed `placed` unseen."""
    now = step(view)
    if before and before[-1] == now:
        return []
    steps = [now]
    machine = place(view)
    if machine and view.phase not in (*UNPLACED, "placed", "inactive", "destroying"):
        placed = f"placed on {machine}"
        last_placed = next((text for text in reversed(before) if text.startswith("placed on ")), None)
        if last_placed != placed and view.phase not in ("stopping", "loaded"):
            steps.insert(0, placed)
    return steps


class Silent:
    """Says nothing (`--quiet`)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def saw(self, view: UnitView) -> None:
        """Ignore it."""

    def ended(self, name: str, word: str) -> None:
        """Ignore it."""

    def remark(self, text: str) -> None:
        """Ignore it."""


class Plain(Silent):
    """Writes a line for each phase change, for files and pipes."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = {}

    def saw(self, view: UnitView) -> None:
        """Say what is new of a unit."""
        said = self._said.setdefault(view.name, [])
        for text in new_steps(view, said):
            said.append(text)
            say(f"{view.name}: {text}")

    def ended(self, name: str, word: str) -> None:
        """Say the last word of a way that was told; who had nothing to do is left to the result."""
        said = self._said.get(name)
        if word and said and said[-1] != word:
            said.append(word)
            say(f"{name}: {word}")

    def remark(self, text: str) -> None:
        """Say it."""
        say(text)


class Live(Silent):
    """Keeps one line a unit up to date: its name and the way it came."""

    _STEPS = 6

    def __init__(self, names: Sequence[str], *, no_color: bool) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._trails: dict[str, list[str]] = {name: [] for name in names}
        self._finished: set[str] = set()
        self._console = Console(stderr=True, no_color=no_color or None, highlight=False)
        self._live = RichLive(
            console=self._console, get_renderable=self._render, refresh_per_second=8, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def saw(self, view: UnitView) -> None:
        """Grow the unit's line; the progress of one step takes the place of the last."""
        trail = self._trails.setdefault(view.name, [])
        for text in new_steps(view, trail):
            if trail and trail[-1].partition(" ")[0] == text.partition(" ")[0]:
                trail.pop()
            trail.append(text)
        self._finished.discard(view.name)

    def ended(self, name: str, word: str) -> None:
        """Finish the unit's line."""
        trail = self._trails.setdefault(name, [])
        if word and (not trail or trail[-1] != word):
            trail.append(word)
        self._finished.add(name)

    def remark(self, text: str) -> None:
        """Say it above the lines."""
        self._console.print(escape(text), markup=False)

    def _render(self) -> Text:
        from rich.text import Text

        room = max(1, self._console.height - 2)
        order = [name for name in self._trails if name not in self._finished]
        order += [name for name in self._trails if name in self._finished]
        shown = sorted(order[:room], key=list(self._trails).index)
        width = max((len(name) for name in shown), default=0)
        text = Text(no_wrap=True, overflow="ellipsis")
        for number, name in enumerate(shown):
            trail = self._trails[name][-self._STEPS :] or ["…"]
            text.append("\n" if number else "")
            text.append("✓ " if name in self._finished else "  ", style="green")
            text.append(f"{escape(name):<{width}}  ", style="bold")
            text.append("".join(f"{escape(each)}{_THEN}" for each in trail[:-1]), style="dim")
            text.append(escape(trail[-1]))
        if len(order) > room:
            text.append(f"\n  {len(self._finished)} of {len(order)} done", style="dim")
        return text
