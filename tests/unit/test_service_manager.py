"""What systemd hears of a daemon."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.virtual_time import run_virtual
from unitfleet.service_manager import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def test_it_is_told_when_the_daemon_serves_and_when_it_ends(manager: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname(), "PATH": "/bin"}
    told = ServiceManager(env)
    told.ready("serving on 127.0.0.1:4001")
    told.stopping()
    assert manager.recv(100) == b"READY=1\nSTATUS=serving on 127.0.0.1:4001"
    assert manager.recv(100) == b"STOPPING=1"
    assert env == {"PATH": "/bin"}, "what the daemon starts does not speak in its name"


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0unitfleet-test-{os.getpid()}")
        ServiceManager({"NOTIFY_SOCKET": f"@unitfleet-test-{os.getpid()}"}).stopping()
        assert listening.recv(100) == b"STOPPING=1"


def test_the_watchdog_hears_twice_as_often_as_it_asks(manager: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    told = ServiceManager(env)

    async def a_while() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await told.keep_awake()

    run_virtual(a_while(), limit_s=200)
    assert [manager.recv(100) for _ in range(7)] == [b"WATCHDOG=1"] * 7  # at 0, 15 … 90 s
    with pytest.raises(BlockingIOError):
        manager.recv(100)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nobody/listens"},
    ],
    ids=["no manager", "the watchdog of another process", "no number", "nobody listens"],
)
def test_without_a_manager_nothing_happens(env: dict[str, str]) -> None:
    told = ServiceManager(env)
    assert told.watchdog_s == 0
    told.ready("serving")
