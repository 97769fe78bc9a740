"""A register and a warden in memory, for simulations: it outlives the agents of its host, as the real one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from unit_agent.drivers.fake import FakeHost
from unit_agent.strict.deadlines import Deadline, Deadlines
from unit_agent.strict.warden import TICK_S


class FakeRegister:
    """The deadlines of one fake host. `ended(unit)` is called before the warden ends a copy."""

    def __init__(
        self, host: FakeHost, deadlines: Deadlines, ended: Callable[[str], None] = lambda unit: None
    ) -> None:
        self._host = host
        self._deadlines = deadlines
        self._ended = ended
        self._units: Mapping[str, Deadline] = {}
        self.full = False  # of its directory: writes fail
        self.unwatched = ""  # why no warden watches

    async def load(self) -> Mapping[str, Deadline]:
        return {unit: Deadline(0, each.until, each.marks) for unit, each in self._units.items() if each.marks}

    async def write(self, units: Mapping[str, Deadline]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self._units = dict(units)

    async def watched(self) -> str:
        return self.unwatched

    def reboot(self) -> None:
        """Lose what stood on the tmpfs."""
        self._units = {}

    async def watch(self) -> None:
        """Be the warden, until cancelled: end what runs past its deadline."""
        while True:
            now = self._deadlines.clock()
            for unit, deadline in self._units.items():
                marked = deadline.marks is not None and now >= self._deadlines.kill_at(deadline)
                if marked and (copy := self._host.copies.get(unit)) is not None and copy.executing:
                    self._ended(unit)
                    self._host.halt(unit)
            await asyncio.sleep(TICK_S)
