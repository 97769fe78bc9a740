"""Passes what a host's unitctl asks on to a master, with the caller's own credentials, and streams the answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from unit_agent.local_copy import LocalCopy, read_record
from unitfleet import codec, keys
from unitfleet.api import ErrorBody
from unitfleet.errors import BadRecord, StoreError
from unitfleet.fleetapi import Error, Wrong, is_fleets
from unitfleet.model import Leader, Record
from unitfleet.store import Store

logger = logging.getLogger(__name__)

MASTERS = "masters.json"

CONNECT_S = 3.0
ASK_S = 3.0  # for the leader's address; the one known before is good enough

_HOP_BY_HOP = {  # RFC 9110, 7.6.1: they speak of one connection
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
}

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)


class KeptMasters(Record, frozen=True, kw_only=True):
    """Where masters answered last."""

    api: tuple[str, ...] = ()


class Relay:
    """Finds a master by the `leader` key, or where one was found last."""

    def __init__(self, store: Store, local: LocalCopy, context: ssl.SSLContext | None = None) -> None:
        self._context = context  # knows the masters by it, and shows nothing: the caller is not this agent
        self._store = store
        self._local = local
        self._known: tuple[str, ...] = ()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as a master does; 503 when none can be reached."""
        why = "no master is known"
        tried: set[str] = set()
        for fresh in (False, True):
            for address in await self._addresses(fresh=fresh):
                # by a master's Unix socket whoever asks is an admin: the agent would lend its own rights
                if address in tried or not address.startswith("https://" if self._context else "http"):
                    continue
                tried.add(address)
                try:
                    return await self._pass_on(request, address)
                except aiohttp.ClientConnectorCertificateError as error:
                    why = f"{address}: its certificate can't be trusted: {error.certificate_error}"
                except aiohttp.ClientConnectorError as error:
                    why = f"{address}: {error.strerror or error}"
        message = f"cannot reach a master from this host: {why}"
        hint = "unit-agent local ps shows this host's units without one"
        body: ErrorBody | Error = ErrorBody(code="unavailable", message=message, hint=hint)
        if is_fleets(request.path):
            body = Error(error=Wrong(code=503, message=f"{message} ({hint})"))
        return web.Response(body=msgspec.json.encode(body), status=503, content_type="application/json")

    async def _addresses(self, *, fresh: bool) -> tuple[str, ...]:
        """Return the known addresses, or what the store says now."""
        if not fresh:
            if not self._known and (kept := await read_record(self._local, MASTERS, KeptMasters)):
                self._known = kept.api
            return self._known
        try:
            async with asyncio.timeout(ASK_S):
                found = await self._store.get(keys.LEADER)
            api = codec.decode(found.value, Leader, keys.LEADER).api if found else ()
        except (StoreError, BadRecord, TimeoutError) as error:
            logger.debug("could not look the leader up: %s", error)
            return ()
        if api and api != self._known:
            self._known = api
            try:
                await self._local.write(MASTERS, codec.encode(KeptMasters(api=api)))
            except OSError as error:
                logger.error("could not save where masters answer: %s", error)
        return api

    async def _pass_on(self, request: web.Request, address: str) -> web.StreamResponse:
        """Send the request to one master; raises ClientConnectorError before anything was sent."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = URL(address.rstrip("/") + request.raw_path, encoded=True)
        connector = aiohttp.TCPConnector(ssl=self._context) if self._context else aiohttp.TCPConnector()
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False) as session,
            session.request(
                request.method,
                url,
                headers=headers,
                data=_chunks(request) if request.can_read_body else None,
                allow_redirects=False,
            ) as source,
        ):
            kept = {name: value for name, value in source.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=source.status, headers=kept)
            await response.prepare(request)
            try:
                async for chunk in source.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientPayloadError as error:
                logger.info("broke off an answer of %s: %s", address, error)
                if request.transport is not None:
                    request.transport.abort()  # an end in order would pass for the whole answer
            return response


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        yield chunk
