"""The members of etcd as one client tries them: how long it waits between attempts, and what ends a wait."""

from __future__ import annotations

import asyncio
import random

from unitfleet.etcd.members import WATCH_AGAIN_S, Members


async def test_a_wait_ends_when_a_member_that_failed_answers_again() -> None:
    members = Members(["127.0.0.1:1"], None, random.Random(1))
    member = members.current
    members.leave(member, "it is away")
    for _ in range(2):
        waits = [asyncio.ensure_future(members.pause(600)) for _ in range(3)]
        await asyncio.sleep(0)
        members.answered(member)
        async with asyncio.timeout(5):
            await asyncio.gather(*waits)
        members.leave(member, "again")


async def test_an_answer_that_is_no_news_ends_no_wait_but_closing_does() -> None:
    members = Members(["127.0.0.1:1"], None, random.Random(1))
    waits = asyncio.ensure_future(members.pause(600))
    for _ in range(5):
        members.answered(members.current)
        await asyncio.sleep(0)
    assert not waits.done()
    await members.close()
    async with asyncio.timeout(5):
        await waits
        await members.pause(600)


async def test_a_watch_that_fails_again_and_again_asks_less_and_less_often() -> None:
    backoff = Members(["127.0.0.1:1"], None, random.Random(1)).backoff(WATCH_AGAIN_S)
    pauses = [backoff.next_s() for _ in range(20)]
    assert pauses[0] < 0.1
    assert all(WATCH_AGAIN_S / 2 <= pause <= WATCH_AGAIN_S * 1.5 for pause in pauses[10:])
    assert len(set(pauses)) == len(pauses), "clients that lost one member do not come back in step"
    backoff.reset()
    assert backoff.next_s() < 0.1
