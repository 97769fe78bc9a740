"""The agent gives back pages of libraries: of none that were written to, and it works on without them."""

from __future__ import annotations

import subprocess
import sys

from unit_agent.slim import clean_libraries


def mapping(span: str, rights: str, path: str, anonymous: int = 0) -> str:
    sizes = f"Size: 1 kB\nRss: 1 kB\nAnonymous:   {anonymous} kB\nVmFlags: rd\n"
    return f"{span} {rights} 00000000 fe:00 123    {path}\n{sizes}"


BIG = "/usr/lib/big.cpython-311-x86_64-linux-gnu.so"


def test_only_clean_mappings_of_large_libraries_are_given_back() -> None:
    smaps = (
        mapping("10000000-10200000", "r-xp", BIG)
        + mapping("10200000-10300000", "r--p", BIG)
        + mapping("10300000-10400000", "r--p", BIG, anonymous=4)  # relocated
        + mapping("10400000-10500000", "rw-p", BIG)
        + mapping("20000000-20001000", "r-xp", "/usr/lib/small.so.1")
        + mapping("30000000-30900000", "r--p", "/var/lib/data")
        + "40000000-40900000 rw-p 00000000 00:00 0 \nAnonymous:   0 kB\n"
        + mapping("50000000-50900000", "r--s", "/usr/lib/shared.so.6")
        + mapping("60000000-60900000", "r-xp", "/usr/lib/libcrypto.so.3")
    )
    assert clean_libraries(smaps) == [
        (0x10000000, 0x10200000),
        (0x10200000, 0x10300000),
        (0x60000000, 0x60900000),
    ]


PROGRAM = """
import asyncio, hashlib, psutil
import grpc.aio, unit_agent.daemon
from unit_agent.slim import give_back
me = psutil.Process()
before = me.memory_info().rss
give_back()
after = me.memory_info().rss
async def use():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        channel.get_state()
asyncio.run(use())
give_back()
print(before - after, hashlib.sha256(b"x").hexdigest()[:8])
"""


def test_an_agent_with_everything_imported_is_smaller_by_megabytes_and_works_on() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    given, digest = done.stdout.split()
    assert int(given) > 8e6 and digest == "2d711642"


ARENAS = """
import re, sys, threading
from pathlib import Path
from unit_agent.slim import share_arenas
if sys.argv[1] == "shared":
    share_arenas()
enough = threading.Barrier(9)
def work():
    kept = [bytes(2000) for _ in range(1000)]
    enough.wait()
    enough.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
enough.wait()
maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
spans = [[int(word, 16) for word in words[0].split("-")] for words in maps]
print(sum(
    used[1] == free[0] and free[1] - used[0] == 64 << 20  # what glibc reserves for one that is not the main one
    for used, free in zip(spans, spans[1:])
))
enough.wait()
"""


def test_threads_of_an_agent_share_one_arena_of_malloc() -> None:
    arenas = {}
    for how in ("shared", "apart"):
        done = subprocess.run([sys.executable, "-c", ARENAS, how], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        arenas[how] = int(done.stdout)
    assert arenas["shared"] == 0
    assert arenas["apart"] > 4, "nothing was tried: this C library has no arenas"
