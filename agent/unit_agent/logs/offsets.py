"""How far each sink has each unit, on disk: written whole, and before the local store may let go of the lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from unitfleet import wholefile

logger = logging.getLogger(__name__)


class Offsets:
    """The last acknowledged number of each unit, for one sink. `fresh` until it was ever saved.

    What `saved` says is on disk: only that may be acknowledged to the local store. With the rest lost in a
    crash, lines are sent a second time, under the same keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saving = asyncio.Lock()
        self.fresh = True
        self.at: dict[str, int] = {}
        self.saved: dict[str, int] = {}

    @property
    def unsaved(self) -> bool:
        """Whether there is anything to save."""
        return self.fresh or self.at != self.saved

    async def load(self) -> None:
        """Read what is kept; a damaged file counts as none, and everything held is sent again."""
        try:
            raw = await asyncio.to_thread(self._path.read_bytes)
            self.at = msgspec.json.decode(raw, type=dict[str, int])
        except FileNotFoundError:
            return
        except (msgspec.MsgspecError, OSError) as error:
            logger.error("could not read %s, so that lines are shipped again: %s", self._path, error)
            return
        self.saved = dict(self.at)
        self.fresh = False

    async def save(self) -> Mapping[str, int]:
        """Write it durably; return what is newly on disk. Raises OSError."""
        async with self._saving:
            now = dict(self.at)
            await asyncio.to_thread(wholefile.replace, self._path, msgspec.json.encode(now))
            news = {unit: seq for unit, seq in now.items() if self.saved.get(unit) != seq}
            self.saved, self.fresh = now, False
        return news
