"""How a master asks an agent: by the address of its presence, a deadline on everything.

With an identity it speaks TLS alone, takes nobody for the agent who does not show the machine's id, and shows its
own certificate; without one it shows the cluster's key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import aiohttp
import msgspec
from yarl import URL

from unitfleet import foreign
from unitfleet.api import ErrorBody
from unitfleet.errors import UnitfleetError
from unitfleet.model import Presence

T = TypeVar("T")

CONNECT_S = 3.0
ANSWER_S = 5.0
MAX_ANSWER = 16 * 1024 * 1024


class AgentAway(UnitfleetError):
    """An agent that gave no answer, or none that can be used; the message says why."""


class AgentLink:
    """The way to the agents. `is_denied` tells the machines that are shut out: nothing is asked of them."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        cluster_key: str,
        *,
        tls: bool = False,
        is_denied: Callable[[str], bool] = lambda machine: False,
    ) -> None:
        self._session = session
        self._headers = {} if tls else {"Authorization": f"Bearer {cluster_key}"}
        self._tls = tls
        self._is_denied = is_denied
        self._open: dict[str, set[aiohttp.ClientResponse]] = {}

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, agent: Presence, path: str, within: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask; give any answer. `path` is encoded. Raises aiohttp's errors, OSError, ValueError, `AgentAway`."""
        if self._is_denied(agent.id):
            raise AgentAway("it was shut out (unitctl machines deny)")
        base = URL.build(scheme="https" if self._tls else "http", host=agent.address, port=agent.port)
        named: dict[str, Any] = {"server_hostname": agent.id} if self._tls else {}
        async with self._session.request(
            method,
            base.join(URL(path, encoded=True)),
            headers=self._headers,
            timeout=within,
            allow_redirects=False,
            **named,
        ) as source:
            held = self._open.setdefault(agent.id, set())
            held.add(source)
            try:
                yield source
            finally:
                held.discard(source)
                if not held:
                    self._open.pop(agent.id, None)

    def shut_out(self) -> None:
        """Break off what is open to machines that are shut out by now."""
        for machine in [machine for machine in self._open if self._is_denied(machine)]:
            for source in tuple(self._open.get(machine, ())):
                source.close()


async def ask(
    link: AgentLink,
    agent: Presence,
    path: str,
    kind: type[T],
    method: str = "GET",
    answer_s: float = ANSWER_S,
) -> T:
    """Return what an agent answers within `answer_s` seconds; raises `AgentAway`."""
    asked = opened(link, agent, path, method=method, answer_s=answer_s)
    try:
        async with asyncio.timeout(answer_s), asked as source:
            return foreign.decode(await _whole(source), kind)
    except TimeoutError:
        raise AgentAway(f"its agent did not answer within {answer_s:g} s") from None
    except msgspec.MsgspecError as error:
        raise AgentAway(f"cannot read its agent's answer: {error}") from error
    except aiohttp.ClientError as error:
        raise AgentAway(f"its agent broke off: {error}") from error


@contextlib.asynccontextmanager
async def opened(
    link: AgentLink,
    agent: Presence,
    path: str,
    *,
    silence_s: float | None = None,
    method: str = "GET",
    answer_s: float = ANSWER_S,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask an agent and give its answer, 200, to be read; raises `AgentAway` before that.

    `silence_s` bounds the wait for each part of the answer; aiohttp's `SocketTimeoutError` then.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(answer_s):
                source = await stack.enter_async_context(link.request(method, agent, path, timeout))
                if source.status != 200:
                    raise AgentAway(_told(await source.content.read(MAX_ANSWER), source.status))
        except TimeoutError:
            raise AgentAway(f"its agent did not answer within {answer_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an address that is none
            raise AgentAway(f"cannot reach its agent: {error}") from error
        yield source


async def _whole(source: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in source.content.iter_any():
        raw += chunk
        if len(raw) > MAX_ANSWER:
            raise AgentAway(f"cannot read its agent's answer: it is longer than {MAX_ANSWER} bytes")
    return bytes(raw)


def _told(raw: bytes, status: int) -> str:
    try:
        return foreign.decode(raw, ErrorBody).message
    except msgspec.MsgspecError:
        return f"its agent answers {status}: it may be of an older version"
