"""Who may pull: so many at once, starts before warming, one pull for all who want the same image."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from unit_agent.images.slots import MadeWay, Slots


class Pullers:
    """Pulls that go on until they are ended, and what became of each."""

    def __init__(self, slots: Slots, tasks: asyncio.TaskGroup) -> None:
        self.slots = slots
        self._tasks = tasks
        self._ends: dict[str, asyncio.Event] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.began: list[str] = []
        self.put_off: list[str] = []

    async def pull(self, who: str, image: str, *, start: bool = False, at_once: bool = False) -> None:
        """Begin to pull; `at_once`: before anything else goes on."""
        end = self._ends[who] = asyncio.Event()

        async def run() -> None:
            while not end.is_set():
                with contextlib.suppress(MadeWay):
                    async with self.slots.taken(image, start=start):
                        self.began.append(who)
                        await end.wait()
                        return
                self.put_off.append(who)

        self._running[who] = self._tasks.create_task(run())
        if not at_once:
            await settle()

    async def end(self, *who: str) -> None:
        for one in who:
            self._ends[one].set()
        await settle()

    async def cancel(self, who: str) -> None:
        self._running[who].cancel()
        await settle()


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def pullers(count: int = 2) -> AsyncIterator[Pullers]:
    slots = Slots(count)
    async with asyncio.TaskGroup() as tasks:
        made = Pullers(slots, tasks)
        yield made
        await made.end(*made._ends)
    assert not slots.pulling, "every slot was given back"


async def test_no_more_than_so_many_pull_at_once() -> None:
    async with pullers(2) as them:
        for number in range(4):
            await them.pull(f"w{number}", f"image{number}")
        assert them.began == ["w0", "w1"]
        await them.end("w0")
        assert them.began == ["w0", "w1", "w2"]


async def test_a_start_goes_before_who_waits_to_warm() -> None:
    async with pullers(1) as them:
        await them.pull("s0", "image0", start=True)
        await them.pull("w1", "image1")
        await them.pull("s1", "image2", start=True)
        await them.end("s0")
        assert them.began == ["s0", "s1"]


async def test_a_start_takes_the_room_of_the_youngest_pull_for_warming_and_gives_it_back() -> None:
    async with pullers(2) as them:
        await them.pull("w0", "image0")
        await them.pull("w1", "image1")
        await them.pull("s", "image2", start=True)
        assert (them.began, them.put_off) == (["w0", "w1", "s"], ["w1"])
        assert them.slots.pulling == {"image0", "image2"}
        await them.end("s")
        assert them.began[-1] == "w1"


async def test_each_start_makes_one_pull_give_way_and_starts_do_not_give_way() -> None:
    async with pullers(2) as them:
        await them.pull("w0", "image0")
        await them.pull("w1", "image1")
        for number in range(3):
            await them.pull(f"s{number}", f"start{number}", start=True)
        assert them.began == ["w0", "w1", "s0", "s1"]
        assert them.put_off == ["w1", "w0"]


async def test_two_starts_at_one_moment_make_two_pulls_give_way_and_not_three() -> None:
    async with pullers(3) as them:
        for number in range(3):
            await them.pull(f"w{number}", f"image{number}")
        await them.pull("s0", "start0", start=True, at_once=True)
        await them.pull("s1", "start1", start=True)
        assert them.put_off == ["w2", "w1"]


async def test_who_wants_an_image_that_is_being_pulled_joins() -> None:
    async with pullers(1) as them:
        await them.pull("w", "image")
        await them.pull("s", "image", start=True)
        await them.pull("other", "image2", start=True)
        assert (them.began, them.put_off) == (["w", "s"], [])  # a start is part of it now
        await them.end("s")
        assert them.began == ["w", "s"]  # its slot is held as long as one of them pulls
        await them.end("w")
        assert them.began == ["w", "s", "other"]


@pytest.mark.parametrize("who", ["waits", "holds"])
async def test_a_pull_that_is_cancelled_gives_its_room_to_the_next(who: str) -> None:
    async with pullers(1) as them:
        await them.pull("holds", "image0", start=True)
        await them.pull("waits", "image1", start=True)
        await them.pull("last", "image2", start=True)
        await them.cancel(who)
        await them.end("holds", "waits")
        assert them.began[-1] == "last"


async def test_one_that_is_cancelled_as_it_is_let_in_leaves_no_slot_taken() -> None:
    async with pullers(1) as them:
        await them.pull("holds", "image0", start=True)
        await them.pull("waits", "image1", start=True)
        them._ends["holds"].set()
        for _ in range(20):
            if "image1" not in them.slots.pulling:
                await asyncio.sleep(0)
        await them.cancel("waits")
        await them.pull("last", "image2", start=True)
        assert them.began[-1] == "last"
