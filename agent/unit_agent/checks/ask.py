"""One question to one copy, bounded in time, bytes and reach: it never asks another host than the copy itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp
from yarl import URL

from unit_agent.driver import Copy, Driver
from unitfleet.errors import DriverError
from unitfleet.spec import CheckKind, CheckSpec

MOST_BODY = 64 * 1024  # bytes of an answer that are read; what comes after is not waited for
MOST_REDIRECTS = 3
LONGEST_TEXT = 200  # characters of an answer that are kept
ENGINE_SLACK_S = 10.0  # what a driver may take beyond the check's own timeout, to end what it started

_OWN_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the copy was well, and in a line why."""

    well: bool
    text: str


def session() -> aiohttp.ClientSession:
    """Return what `ask` needs for http: no cookies, proxies, unpacking or connections that stay.

    Certificates are not judged: a check asks whether the copy answers, on a connection that leaves this host
    nowhere, and most copies have a certificate for another name.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=False, force_close=True, limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"User-Agent": "unitfleet-check"},
        auto_decompress=False,
        trust_env=False,
    )


async def ask(check: CheckSpec, copy: Copy, driver: Driver, http: aiohttp.ClientSession) -> Answer:
    """Ask, within `check.timeout_s`; every failure is an answer."""
    try:
        if check.kind is CheckKind.EXEC:
            async with asyncio.timeout(check.timeout_s + ENGINE_SLACK_S):
                return _of_command(check, *await driver.execute(copy.unit, check.words, check.timeout_s))
        if not copy.own_address:
            return Answer(False, f"cannot reach {check.target}: the copy has no address that this host can reach")
        async with asyncio.timeout(check.timeout_s):
            if check.kind is CheckKind.TCP:
                return await _connect(check, copy.own_address)
            return await _get(http, URL(check.target, encoded=True), copy.own_address)
    except TimeoutError:
        return Answer(False, f"no answer from {check.target} within {check.timeout_s:g} s")
    except DriverError as error:
        return Answer(False, first_line(error.message))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Answer(False, f"cannot ask {check.target}: {first_line(str(error) or type(error).__name__)}")


def first_line(text: str) -> str:
    """Return the first line that says something, printable and cut."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(char if char.isprintable() else "�" for char in line)[:LONGEST_TEXT]


def _of_command(check: CheckSpec, code: int, output: str) -> Answer:
    said = first_line(output)
    if code == 0:
        return Answer(True, said)
    return Answer(False, f"{check.words[0]} exited with status {code}" + (f": {said}" if said else ""))


async def _connect(check: CheckSpec, address: str) -> Answer:
    port = int(check.target.rpartition(":")[2])
    _, writer = await asyncio.open_connection(address, port)
    own, other = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    writer.transport.abort()
    if own == other:  # nobody listens, and the port that we came from was the one we asked
        return Answer(False, f"cannot ask {check.target}: connection refused")
    return Answer(True, f"{check.target} takes connections")


async def _get(http: aiohttp.ClientSession, url: URL, address: str) -> Answer:
    """Get a page; redirects are followed within the copy only, its status tells."""
    for _ in range(MOST_REDIRECTS + 1):
        async with http.get(url.with_host(address), allow_redirects=False) as answer:
            text = f"{answer.status} {answer.reason or ''}".strip()
            to = answer.headers.get("Location", "") if answer.status in _REDIRECTS else ""
            if not to:
                said = first_line(await _read(answer.content))
                return Answer(200 <= answer.status < 400, f"{text}: {said}" if said else text)
        url = url.join(URL(to))
        if url.host not in (*_OWN_NAMES, address) or url.scheme not in ("http", "https"):
            return Answer(True, f"{text} to {first_line(to)}")
    return Answer(False, f"redirected more than {MOST_REDIRECTS} times, at last to {first_line(str(url))}")


async def _read(content: aiohttp.StreamReader) -> str:
    kept = b""
    while len(kept) < MOST_BODY and (chunk := await content.read(MOST_BODY - len(kept))):
        kept += chunk
    return kept.decode(errors="replace")
