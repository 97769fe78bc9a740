"""Questions to the Engine on bare sockets: what is whole is taken, what is not is an Engine that broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from unit_agent.drivers.docker_engine import Engine, EngineAway, EngineRefused
from unit_agent.drivers.docker_images import Lookups

CONTAINER = b'{"Id": "c1"}'


@asynccontextmanager
async def engine_that_answers(directory: Path, *pieces: bytes) -> AsyncIterator[tuple[Engine, list[bytes]]]:
    """Give an Engine that says this to whoever asks, piece by piece, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    path = str(directory / "engine.sock")
    async with await asyncio.start_unix_server(serve, path):
        engine = Engine(path)
        try:
            yield engine, asked
        finally:
            await engine.close()


async def test_an_answer_in_pieces_is_one(tmp_path: Path) -> None:
    pieces = (
        b"HTTP/1.0 200 OK\r\nContent-Type: application",
        b"/json\r\n\r",
        b"\n" + CONTAINER[:4],
        CONTAINER[4:],
    )
    async with engine_that_answers(tmp_path, *pieces) as (engine, asked):
        assert await engine.inspect("c1") == {"Id": "c1"}
        assert asked[0].startswith(b"GET /containers/c1/json HTTP/1.0\r\n")


async def test_a_refusal_carries_the_engines_own_words(tmp_path: Path) -> None:
    said = b'HTTP/1.1 409 Conflict\r\n\r\n{"message": "the name is in use"}'
    async with engine_that_answers(tmp_path, said) as (engine, _):
        with pytest.raises(EngineRefused, match=r"cannot create a\.service: the name is in use") as refused:
            await engine.create("a.service", "a", {})
        assert refused.value.status == 409


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.0 200 OK\r\nContent-",
        b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n" + CONTAINER,
        b"HTTP/1.0 200 OK\r\n\r\n" + CONTAINER[:-1],
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
    ids=["nothing", "half a head", "less than it said", "half a body", "another protocol"],
)
async def test_an_answer_that_is_not_whole_is_an_engine_that_broke_off(tmp_path: Path, said: bytes) -> None:
    async with engine_that_answers(tmp_path, said) as (engine, _):
        with pytest.raises(EngineAway, match="broke off"):
            await engine.inspect("c1")


async def test_an_engine_that_is_not_there_is_told_by_its_socket(tmp_path: Path) -> None:
    with pytest.raises(EngineAway, match=r"nobody\.sock can't be reached"):
        await Engine(str(tmp_path / "nobody.sock")).start("a.service", "c1")


async def test_a_burst_of_one_image_looks_it_up_once(tmp_path: Path) -> None:
    said = b'HTTP/1.0 200 OK\r\n\r\n{"Id": "sha256:1"}'
    async with engine_that_answers(tmp_path, said) as (engine, asked):
        lookups, since = Lookups(engine), asyncio.get_running_loop().time()
        found = await asyncio.gather(*(lookups.digest("app:1", since) for _ in range(20)))
        assert found == ["sha256:1"] * 20 and len(asked) == 1


async def test_who_begins_after_an_image_was_looked_up_looks_anew(tmp_path: Path) -> None:
    """Its tag may have been moved, or the image removed, before this start was ordered."""
    said = b'HTTP/1.0 200 OK\r\n\r\n{"Id": "sha256:1"}'
    async with engine_that_answers(tmp_path, said) as (engine, asked):
        lookups, time = Lookups(engine), asyncio.get_running_loop().time
        since = time()
        await lookups.digest("app:1", since)
        await lookups.digest("app:1", time())
        assert len(asked) == 2
        lookups.forget()
        await lookups.digest("app:1", since)
        assert len(asked) == 3


async def test_an_image_that_is_not_here_is_looked_for_by_each(tmp_path: Path) -> None:
    """The first to look pulls it."""
    async with engine_that_answers(tmp_path, b'HTTP/1.0 404 No\r\n\r\n{"message": "no such image"}') as (
        engine,
        asked,
    ):
        lookups, since = Lookups(engine), asyncio.get_running_loop().time()
        assert [await lookups.digest("app:1", since) for _ in range(2)] == ["", ""] and len(asked) == 2
