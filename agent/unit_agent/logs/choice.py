"""Which of this agent's sinks get the lines of a unit: its `LogSink=`, or all of them.

What a unit chose is kept on disk: its lines are shipped still when it has left this machine and its text is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from unitfleet import wholefile

logger = logging.getLogger(__name__)

NOWHERE = "none"
"""`LogSink=none`: a unit's lines stay on the machine."""

FILE = "units.json"


class Choices:
    """The sinks each unit named. `tell` hears of names that this agent has no sink for, once a unit."""

    def __init__(self, folder: Path, sinks: Collection[str], tell: Callable[[str, str, str], None]) -> None:
        self._path = folder / FILE
        self._sinks = sorted(sinks)
        self._tell = tell
        self._named: dict[str, tuple[str, ...]] = {}
        self._saved: dict[str, tuple[str, ...]] = {}
        self._told: dict[str, tuple[str, ...]] = {}

    async def load(self) -> None:
        """Read what units chose before."""
        try:
            raw = await asyncio.to_thread(self._path.read_bytes)
            self._named = msgspec.json.decode(raw, type=dict[str, tuple[str, ...]])
        except FileNotFoundError:
            return
        except (msgspec.MsgspecError, OSError) as error:
            logger.error("could not read %s: %s", self._path, error)
            return
        self._saved = dict(self._named)

    def put(self, unit: str, named: Sequence[str]) -> None:
        """Note what a unit's text names; () is all."""
        if named:
            self._named[unit] = tuple(named)
        else:
            self._named.pop(unit, None)
        unknown = tuple(name for name in named if name not in self._sinks and name != NOWHERE)
        if unknown and self._told.get(unit) != unknown:
            have = f"this agent has {', '.join(self._sinks)}" if self._sinks else "this agent has no sinks"
            self._tell("log-sink-unknown", unit, f"no sink is called {', '.join(unknown)}: {have} (--log-sinks)")
        self._told[unit] = unknown

    def wants(self, unit: str, sink: str) -> bool:
        """Tell whether the unit's lines go to the sink."""
        named = self._named.get(unit)
        return named is None or sink in named

    async def save(self, held: Collection[str]) -> None:
        """Write it when it changed; units of which nothing is held any more are forgotten. Raises OSError."""
        kept = {unit: named for unit, named in self._named.items() if unit in held}
        if kept != self._saved:
            await asyncio.to_thread(wholefile.replace, self._path, msgspec.json.encode(kept))
            self._saved = kept
