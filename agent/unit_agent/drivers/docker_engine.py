"""A Docker Engine behind a socket: every call with a deadline, every failure a `DriverError`.

Each call has a connection of its own: a daemon that shuts down refuses new connections first, so a call that is
answered was answered by a daemon that is in its right mind. What every start asks goes by `docker_wire`, all else
through aiodocker. The streams (events, logs) are read from the session itself, which tells stdout from stderr and
ends with its reader.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from unit_agent.drivers import docker_wire
from unitfleet.errors import DriverError, DriverUnavailable

CONNECT_S = 2.0
INSPECT_S = 5.0
LIST_S = 10.0
CHANGE_S = 60.0  # create, start, remove: disks and registries of plugins take their time

_UNREACHABLE = 900  # aiodocker's status for a connection that failed
_BUFFER = 1 << 20  # of a stream: a line longer than twice this would end it

T = TypeVar("T")


class EngineAway(DriverUnavailable):
    """The Engine can't be reached or does not answer in time: nothing is known."""


class EngineRefused(DriverError):
    """The Engine said no; `status` is HTTP's, `reason` its own words."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Engine:
    """The Engine at `socket`. Clients are made at the first call, on the loop that runs then.

    `observe` takes each call's first word and its seconds.
    """

    def __init__(self, socket: str, observe: Callable[[str, float], None] | None = None) -> None:
        self.socket = socket
        self._observe = observe or (lambda operation, seconds: None)
        self._clients: list[tuple[Docker, aiohttp.UnixConnector]] = []

    @property
    def docker(self) -> Docker:
        """Return the client for calls."""
        return self._client(0)

    @property
    def _streams(self) -> Docker:
        return self._client(1)

    def _client(self, index: int) -> Docker:
        while len(self._clients) <= index:
            # limit=0: with the default of 100 connections, 100 followed logs block every other call for ever
            connector = aiohttp.UnixConnector(self.socket, limit=0, force_close=True)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            url = "unix://localhost"
            self._clients.append((Docker(url=url, connector=connector, timeout=timeout), connector))
        return self._clients[index][0]

    async def call(self, doing: str, call: Awaitable[T], timeout_s: float | None) -> T:
        """Await a call; `doing` completes `cannot …` in the error, None as a timeout waits for ever."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError as error:
            late = f"the Docker Engine did not answer within {timeout_s:g} s"
            raise EngineAway(f"cannot {doing}: {late}") from error
        except DockerError as error:
            raise self.failure(doing, error) from error
        except (ConnectionRefusedError, FileNotFoundError, PermissionError) as error:
            raise EngineAway(f"cannot {doing}: the Docker Engine at {self.socket} can't be reached") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineAway(f"cannot {doing}: the Docker Engine broke off: {error}") from error
        finally:
            self._observe(doing.partition(" ")[0], asyncio.get_running_loop().time() - began)

    def failure(self, doing: str, error: DockerError) -> DriverError:
        """Return aiodocker's error as ours."""
        if error.status == _UNREACHABLE:
            return EngineAway(f"cannot {doing}: the Docker Engine at {self.socket} can't be reached")
        reason = str(error.message).strip()
        return EngineRefused(f"cannot {doing}: {reason}", error.status, reason)

    async def ask(
        self, doing: str, method: str, target: str, timeout_s: float | None, body: object = None
    ) -> bytes:
        """Return the answer to one question; raises as `call` does."""
        status, answer = await self.call(doing, docker_wire.ask(self.socket, method, target, body), timeout_s)
        if status >= 400:
            reason = docker_wire.reason(answer)
            raise EngineRefused(f"cannot {doing}: {reason}", status, reason)
        return answer

    async def create(self, unit: str, name: str, body: Mapping[str, Any]) -> str:
        """Create a container and return its id."""
        target = f"containers/create?{urlencode({'name': name})}"
        return str(_read(await self.ask(f"create {unit}", "POST", target, CHANGE_S, body), f"create {unit}")["Id"])

    async def start(self, unit: str, copy_id: str) -> None:
        """Start a container; one that runs already is fine."""
        await self.ask(f"start {unit}", "POST", f"containers/{copy_id}/start", CHANGE_S)

    async def inspect(self, copy_id: str) -> dict[str, Any]:
        """Return everything about one container; raises `EngineRefused` with status 404 when it is gone."""
        doing = f"inspect container {copy_id[:12]}"
        return _read(await self.ask(doing, "GET", f"containers/{quote(copy_id)}/json", INSPECT_S), doing)

    async def inspect_image(self, image: str) -> dict[str, Any]:
        """Return everything about one image, by any of its names; raises `EngineRefused` with status 404."""
        doing = f"inspect image {image}"
        return _read(await self.ask(doing, "GET", f"images/{quote(image, safe='/:@')}/json", INSPECT_S), doing)

    async def list(self, filters: Mapping[str, list[str]]) -> list[Any]:
        """Return the containers, running or not, that the filters let through."""
        return await self.call(
            "list containers", self.docker.containers.list(all=True, filters=json.dumps(filters)), LIST_S
        )

    @asynccontextmanager
    async def stream(
        self, doing: str, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a GET that goes on; the reader may raise aiohttp.ClientError when the Engine goes away."""
        request = self._streams.session.get(
            f"http://engine/{path}",
            params=dict(params),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            read_bufsize=_BUFFER,
        )
        try:
            async with asyncio.timeout(INSPECT_S):
                response = await request
        except TimeoutError as error:
            raise EngineAway(f"cannot {doing}: the Docker Engine did not answer within {INSPECT_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineAway(f"cannot {doing}: the Docker Engine at {self.socket} can't be reached") from error
        try:
            if response.status >= 400:
                body = await self.call(doing, response.json(), INSPECT_S)
                reason = str(body.get("message", response.reason))
                raise EngineRefused(f"cannot {doing}: {reason}", response.status, reason)
            yield response.content
        finally:
            response.close()

    async def close(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, []
        for docker, connector in clients:
            await docker.close()
            await connector.close()


def _read(answer: bytes, doing: str) -> dict[str, Any]:
    """Return what an answer says; one that can't be read was cut short."""
    try:
        return msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise EngineAway(f"cannot {doing}: the Docker Engine broke off: {error}") from error
