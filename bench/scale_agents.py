"""Many simulated machines in one process, for `bench/scale`: the real agent core over drivers in memory.

Each agent has a store of its own, so a connection of its own to etcd, as it has on a host of its own; they share
this process's event loop alone. Commands come as JSON lines on stdin, each is answered by one on stdout:

    {"do": "end", "machines": [3, 4]}   end these agents as a power cut would → {"at": {"3": when, …}}
    {"do": "traffic"}                   → {"connections": n, "sent": bytes, "received": bytes} since they began
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import socket
import struct
import sys
import time
from typing import Any

from unit_agent.agent import Agent
from unit_agent.drivers.fake import FakeDriver, FakeHost
from unit_agent.local_copy import MemoryCopy
from unit_agent.machine import Facts
from unit_agent.timings import TIMINGS
from unitfleet.etcd.store import EtcdStore
from unitfleet.model import Capacity, Resources
from unitfleet.profiles import Profile

GIB = 1024**3
CAPACITY = Capacity(cpu=64.0, memory=256 * GIB, disk=1024 * GIB)
WANDERS = 0.03
"""Of its capacity: so much what a machine uses goes up and down, as it does while nothing happens."""

JOINS_A_SECOND = 20
"""Agents begin at this pace at most: machines of a fleet do not boot in one moment."""

MOST_JOINING = 6
"""Agents that are not there yet, or not any more: others wait, for all share a computer that has more to do."""

_BYTES_ACKED, _BYTES_RECEIVED = 120, 128
"""Where Linux's `struct tcp_info` counts what the other side acknowledged, and what came (8 bytes each)."""


class Machine:
    """One simulated machine with its agent."""

    def __init__(self, number: int, endpoints: list[str]) -> None:
        self._rng = random.Random(number)
        self._store = EtcdStore(endpoints, probe_s=Profile.DEFAULT.probe_s)
        self._id = f"{number:032x}"
        self._agent = Agent(
            self._store,
            [FakeDriver(FakeHost(wall=time.time), "process")],
            Facts(id=self._id, name=f"s{number}", boot_id="b1", fingerprint=f"f{number}", capacity=CAPACITY),
            MemoryCopy(),
            now=time.time,
            rng=self._rng,
            timings=TIMINGS[Profile.DEFAULT],
            measure=self._measure,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to be there."""
        self._task = tasks.create_task(self._agent.run())

    @property
    def is_there(self) -> bool:
        """Whether it has joined, and knows what it is to run."""
        return self._agent.presence.standing and self._agent.sync.synced.is_set()

    async def end(self) -> float:
        """Fall silent at once, and leave everything behind; return when."""
        assert self._task is not None
        self._task.cancel()
        at = time.time()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._store.close()
        return at

    def _measure(self) -> Resources:
        used = 0.3 + self._rng.uniform(-WANDERS, WANDERS)
        return Resources(
            id=self._id, capacity=CAPACITY, cpu_used=used * CAPACITY.cpu, memory_used=int(used * CAPACITY.memory)
        )


def traffic(port: int) -> dict[str, int]:
    """Add up what went over this process's connections to `port` so far, as TCP counts it."""
    told = {"connections": 0, "sent": 0, "received": 0}
    for name in os.listdir("/proc/self/fd"):
        try:
            held = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # no socket
        with held:
            try:
                if held.family not in (socket.AF_INET, socket.AF_INET6) or held.getpeername()[1] != port:
                    continue
                info = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
            except OSError:
                continue  # not connected
        told["connections"] += 1
        told["sent"] += struct.unpack_from("=Q", info, _BYTES_ACKED)[0]
        told["received"] += struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0]
    return told


async def serve(first: int, count: int, endpoints: list[str]) -> None:
    """Run the machines `first` … until stdin ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    machines = {number: Machine(number, endpoints) for number in range(first, first + count)}
    async with asyncio.TaskGroup() as tasks:
        begun: list[Machine] = []
        for machine in machines.values():
            machine.start(tasks)
            begun.append(machine)
            await asyncio.sleep(1 / JOINS_A_SECOND)
            while sum(not each.is_there for each in begun) >= MOST_JOINING:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(1 / JOINS_A_SECOND)
        while command := await reader.readline():
            print(json.dumps(await answer(json.loads(command), machines, endpoints)), flush=True)
        for machine in machines.values():
            await machine.end()


async def answer(command: dict[str, Any], machines: dict[int, Machine], endpoints: list[str]) -> dict[str, Any]:
    """Carry out one command."""
    if command["do"] == "traffic":
        return traffic(int(endpoints[0].rpartition(":")[2]))
    ends = await asyncio.gather(*(machines.pop(number).end() for number in command["machines"]))
    return {"at": dict(zip(command["machines"], ends, strict=True))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # a heap of hundreds of agents: no machine has one, nor its pauses
    asyncio.run(serve(options.first, options.count, options.etcd.split(",")))
