"""A model of a host and its Engine, with faults: calls that fail, hang, or are done and answered with an error;
an Engine that restarts, with or without its containers; a disk that is full.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from harness.processes import outside
from unit_agent.driver import Copy, Order, Report
from unit_agent.drivers.fake import FakeDriver, FakeHost
from unit_agent.local_copy import MemoryCopy
from unit_agent.restart import Exit
from unitfleet.errors import DriverUnavailable
from unitfleet.model import CopyPhase

T = TypeVar("T")

Observer = Callable[[Copy, Copy, bool], None]


class ModelHost(FakeHost):
    """A host. `observer(before, after, by_misfortune)` is told each change of a copy, at once.

    `fail_calls`, `lose_calls`, `hang_calls`: so many of the next calls are refused; are done, and answered with an
    error; get no answer for `hang_s`. What runs here runs on while an agent is paused.
    """

    def __init__(self, wall: Callable[[], float], seed: int) -> None:
        super().__init__(wall, seed)
        self.observer: Observer = lambda before, after, by_misfortune: None
        self.fail_calls = 0
        self.lose_calls = 0
        self.hang_calls = 0
        self.hang_s = 0.0
        self.engine_away = False
        self.crashed: set[str] = set()  # units that a misfortune has ended once
        self.fenced: set[str] = set()  # strict units that the warden has ended once
        self._misfortune = False

    @contextlib.contextmanager
    def misfortune(self) -> Iterator[None]:
        """What ends meanwhile ends by the fault that the simulation makes."""
        self._misfortune = True
        try:
            yield
        finally:
            self._misfortune = False

    def crash(self, unit: str, exit: Exit | None = None) -> None:
        self.crashed.add(unit)
        with self.misfortune():
            super().crash(unit, exit)

    def power_off(self) -> None:
        with self.misfortune():
            super().power_off()

    def engine_goes(self, *, kills: bool) -> None:
        """Let the Engine be away; with `kills` all that runs ends with it."""
        self.engine_away = True
        if kills:
            for unit in sorted(self.running()):
                self.crash(unit, Exit(signal="SIGKILL"))
        self._tell("")

    def engine_comes(self) -> None:
        """Let the Engine be there again."""
        self.engine_away = False
        self._tell("")

    def forget(self) -> None:
        """End every fault."""
        self.fail_calls = self.lose_calls = self.hang_calls = 0
        self.engine_comes()

    def there(self) -> bool:
        """Return True; raises `DriverUnavailable` while the Engine is away."""
        if self.engine_away:
            raise DriverUnavailable("cannot reach the Engine: it restarts")
        return True

    def _become(
        self, unit: str, phase: CopyPhase, *, message: str, pid: int = 0, restarts: int | None = None
    ) -> None:
        before = self._held[unit].copy
        super()._become(unit, phase, message=message, pid=pid, restarts=restarts)
        self.observer(before, self._held[unit].copy, self._misfortune)

    def _begin(self, unit: str, restarts: int) -> None:
        outside(super()._begin, unit, restarts)

    def _end(self, unit: str) -> None:
        outside(super()._end, unit)

    def _exited(self, unit: str, exit: Exit, *, for_good: bool = False) -> None:
        outside(partial(super()._exited, unit, exit, for_good=for_good))


class ModelDriver(FakeDriver):
    """The driver of a `ModelHost`."""

    def __init__(self, host: ModelHost, name: str) -> None:
        super().__init__(host, name)
        self._model = host

    async def list(self) -> Sequence[Copy]:
        self._model.there()
        return [copy for copy in await super().list() if copy.driver == self.name]

    async def prepare(self, order: Order, report: Report) -> str:
        return await self._spoilt(lambda: super(ModelDriver, self).prepare(order, report))

    async def create(self, order: Order) -> Copy:
        return await self._spoilt(lambda: super(ModelDriver, self).create(order))

    async def start(self, order: Order) -> Copy:
        return await self._spoilt(lambda: super(ModelDriver, self).start(order))

    async def stop(self, unit: str) -> None:
        await self._spoilt(lambda: super(ModelDriver, self).stop(unit))

    async def remove(self, unit: str) -> None:
        await self._spoilt(lambda: super(ModelDriver, self).remove(unit))

    async def events(self) -> AsyncGenerator[str, None]:
        self._model.there()
        async with contextlib.aclosing(super().events()) as events:
            async for unit in events:
                self._model.there()
                yield unit

    async def _until(self, unit: str, condition: Callable[[Copy], bool]) -> None:
        await super()._until(unit, lambda copy: self._model.there() and condition(copy))

    async def _spoilt(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do a call as well as this host's Engine does at the moment."""
        host = self._model
        host.there()
        if host.fail_calls:
            host.fail_calls -= 1
            raise DriverUnavailable("cannot do this now: the simulated Engine refuses")
        if host.hang_calls:
            host.hang_calls -= 1
            await asyncio.sleep(host.hang_s)
            raise DriverUnavailable("no answer of the simulated Engine")
        answer = await call()
        if host.lose_calls:
            host.lose_calls -= 1
            raise DriverUnavailable("the answer of the simulated Engine was lost")
        return answer


class ModelCopy(MemoryCopy):
    """A local copy on a disk that may be full."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False

    async def write(self, name: str, data: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        await super().write(name, data)
