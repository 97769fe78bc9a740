"""What the agent remembers of images over restarts: which its pulls brought, and when each was used."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from unit_agent.local_copy import DirectoryCopy
from unitfleet import codec
from unitfleet.errors import BadRecord
from unitfleet.model import Record

logger = logging.getLogger(__name__)

FILE = "images.json"


class KeptImages(Record, frozen=True, kw_only=True):
    """`images.json`. Images go by their ids."""

    ready_boot: str = ""  # the boot in which this machine was ready last
    brought: dict[str, tuple[str, ...]] = msgspec.field(
        default_factory=dict
    )  # the references that a pull brought it by
    used: dict[str, float] = msgspec.field(default_factory=dict)  # seconds since 1970


class ImageRecord:
    """The record in memory and on disk. A disk that is full costs what was noted last, nothing else."""

    def __init__(self, state_dir: Path) -> None:
        self._copy = DirectoryCopy(state_dir)
        self._writing = asyncio.Lock()
        self.kept = _read(state_dir / FILE)

    async def save(self) -> None:
        """Write it down."""
        async with self._writing:
            try:
                await self._copy.write(FILE, codec.encode(self.kept))
            except OSError as error:
                logger.warning("could not save what is known of images: %s", error)

    def ready_in(self, boot_id: str) -> None:
        """Note that this machine was ready in this boot."""
        self.kept = msgspec.structs.replace(self.kept, ready_boot=boot_id)

    def brought(self, id: str, image: str, now: float) -> None:
        """Note an image that a pull brought."""
        references = tuple(sorted({*self.kept.brought.get(id, ()), image}))
        self.kept = msgspec.structs.replace(self.kept, brought={**self.kept.brought, id: references})
        self.used([id], now)

    def used(self, ids: list[str], now: float) -> None:
        """Note that images are in use."""
        self.kept = msgspec.structs.replace(self.kept, used={**self.kept.used, **dict.fromkeys(ids, now)})

    def keep_only(self, ids: set[str]) -> None:
        """Forget images that are gone."""
        self.kept = msgspec.structs.replace(
            self.kept,
            brought={id: names for id, names in self.kept.brought.items() if id in ids},
            used={id: at for id, at in self.kept.used.items() if id in ids},
        )


def _read(path: Path) -> KeptImages:
    try:
        return codec.decode(path.read_bytes(), KeptImages, FILE)
    except FileNotFoundError:
        return KeptImages()
    except (OSError, BadRecord) as error:
        logger.error("ignored what was known of images: %s", error)
        return KeptImages()
