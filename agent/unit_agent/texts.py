"""Unit texts by digest: fetched once from the store, kept on disk, read once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping

from unit_agent.driver import Order
from unit_agent.local_copy import LocalCopy
from unitfleet import keys
from unitfleet.accept import read, read_kept
from unitfleet.errors import InvalidUnit, NotFound
from unitfleet.model import Placement
from unitfleet.spec import UnitSpec
from unitfleet.store import Store

logger = logging.getLogger(__name__)

FOLDER = "specs"


class Texts:
    """The texts that placements of this machine name. They are immutable: a digest is read once.

    `specifiers` are the `%` letters that are this host's own.
    """

    def __init__(self, store: Store, local: LocalCopy, specifiers: Mapping[str, str]) -> None:
        self._store = store
        self._local = local
        self._specifiers = specifiers
        self._specs: dict[tuple[str, str], UnitSpec] = {}
        self._unreadable: set[tuple[str, str]] = set()
        self._reading: dict[str, asyncio.Lock] = {}  # by digest: several may ask at once, one fetches and saves
        self._unsaved: dict[str, bytes] = {}  # by digest: what the disk had no room for
        self._latest = ("", "")  # digest and text: instances of a template come one after the other

    def known(self, unit: str, digest: str) -> UnitSpec | None:
        """Return the text if it was read before."""
        return self._specs.get((unit, digest))

    def unreadable(self, unit: str, digest: str) -> bool:
        """Tell whether the text was looked at and is none that this version runs, or is lost."""
        return (unit, digest) in self._unreadable

    async def order(self, placement: Placement) -> Order:
        """Return what a driver is to make of a placement.

        Raises `StoreError` when its text is not on disk and can't be fetched now, `NotFound` when the store
        does not have it, `InvalidUnit` when it is none that this version runs.
        """
        key = (placement.unit, placement.spec)
        if key not in self._specs:
            async with self._reading.setdefault(placement.spec, asyncio.Lock()):
                if key not in self._specs:
                    self._specs[key] = await self._read(placement)
                    self._unreadable.discard(key)  # a read that lagged may not have found it
        return Order(placement, self._specs[key])

    async def keep_only(self, digests: set[str]) -> None:
        """Forget every text that is not among `digests`."""
        self._specs = {key: spec for key, spec in self._specs.items() if key[1] in digests}
        self._unreadable = {key for key in self._unreadable if key[1] in digests}
        self._reading = {digest: lock for digest, lock in self._reading.items() if digest in digests}
        self._unsaved = {digest: raw for digest, raw in self._unsaved.items() if digest in digests}
        if self._latest[0] not in digests:
            self._latest = ("", "")
        for digest in await self._local.names(FOLDER):
            if digest not in digests:
                await self._local.delete(f"{FOLDER}/{digest}")

    async def save_again(self) -> None:
        """Write texts that could not be written, if there is room by now."""
        for digest, raw in list(self._unsaved.items()):
            try:
                await self._local.write(f"{FOLDER}/{digest}", raw)
            except OSError:
                return
            self._unsaved.pop(digest, None)

    async def _read(self, placement: Placement) -> UnitSpec:
        try:
            text = await self._text(placement)
            if "%" not in text:  # it says the same on every host, and to all instances of its template
                return read_kept(placement.unit, text)
            return read(placement.unit, text, host=self._specifiers)
        except (InvalidUnit, NotFound):
            self._unreadable.add((placement.unit, placement.spec))
            raise

    async def _text(self, placement: Placement) -> str:
        digest, text = self._latest
        if digest != placement.spec:
            text = await self._fetch(placement)
            self._latest = placement.spec, text
        return text

    async def _fetch(self, placement: Placement) -> str:
        name = f"{FOLDER}/{placement.spec}"
        raw = await self._local.read(name)
        if raw is None or _digest(raw) != placement.spec:
            found = await self._store.get(keys.spec(placement.spec))
            if found is None:
                raise NotFound(f"cannot read the text of {placement.unit}: the store has no {placement.spec}")
            raw = found.value
            if _digest(raw) != placement.spec:
                raise InvalidUnit(
                    f"cannot read the text of {placement.unit}: {found.key} in the store holds another text"
                )
            try:
                await self._local.write(name, raw)
            except OSError as error:
                logger.error("could not save the text of %s: %s", placement.unit, error)
                self._unsaved[placement.spec] = raw
        return raw.decode(errors="replace")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
