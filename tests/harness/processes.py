"""Processes of a simulation that can be stopped and go on later, as SIGSTOP and SIGCONT do.

    process = Process()
    task = process.spawn(tasks, agent.run(), "agent m1")
    process.pause()
    process.resume()

Every task, timer and wake-up of a process carries it in its context; while the process is paused the loop puts
them aside in their order. What others do meanwhile (the store's clock, the host's copies) goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from harness.virtual_time import BUSY_LIMIT, JumpingSelector, VirtualTimeLoop

WORK_S = 1e-9
"""What a round of work takes: no clock stands still while a program runs."""

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """What one SIGSTOP stops."""

    def __init__(self) -> None:
        self.paused = False
        self.put_aside: list[asyncio.Handle] = []

    def spawn(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start the work as a task of this process; tasks and timers it makes are of this process too."""
        context = contextvars.copy_context()
        context.run(_process.set, self)
        return tasks.create_task(work, name=name, context=context)

    def pause(self) -> None:
        """Let nothing of it run from now on."""
        self.paused = True

    def resume(self) -> None:
        """Let it go on, with everything that came due meanwhile, in order."""
        self.paused = False
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        loop.take_back(self.put_aside)
        self.put_aside = []


def outside(call: Callable[..., None], *args: Any) -> None:
    """Call it in no process's name: timers it sets go on while whoever asked for it is paused."""
    contextvars.Context().run(call, *args)


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        process = self._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and process.paused:
            process.put_aside.append(self)
        else:
            super()._run()


class _Timer(asyncio.TimerHandle):
    def _run(self) -> None:
        process = self._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and process.paused:
            process.put_aside.append(self)
        else:
            super()._run()


class _Nothing(JumpingSelector):
    """Asks the kernel nothing: in a simulation nobody comes from outside."""

    def look(self) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += WORK_S
        return []


class ProcessLoop(VirtualTimeLoop):
    """A virtual clock that knows processes."""

    def __init__(self) -> None:
        super().__init__(_Nothing(BUSY_LIMIT // 50))

    def take_back(self, handles: list[asyncio.Handle]) -> None:
        """Run these next."""
        self._ready.extend(handle for handle in handles if not handle.cancelled())

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As any loop's."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer
