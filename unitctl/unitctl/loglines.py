"""Reads `/v1/logs` as a stream: however many lines there are, they are shown as they come."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlencode

import msgspec

from unitctl.client import error_from
from unitctl.failures import Unreachable
from unitctl.transport import ANSWER_S, Answer, Transport, describe, unreachable
from unitfleet.api import LogLine
from unitfleet.logquery import LogQuery

SILENCE_S = 60.0
"""A search may look at much before the first line is found."""


def unit_path(unit: str, query: LogQuery, machine: str = "") -> str:
    """Return where the lines of a unit are read."""
    words = {**query.text(), **({"machine": machine} if machine else {})}
    return f"/v1/logs/{quote(unit, safe='')}?{urlencode(words)}"


def all_path(query: LogQuery, words: Mapping[str, str]) -> str:
    """Return where lines of all units are searched for, in the masters' archive."""
    limit = {"limit": str(query.lines)} if query.lines >= 0 else {}
    text = {key: value for key, value in query.text().items() if key in ("since", "until", "grep")}
    return f"/v1/logs?{urlencode({**text, **limit, **words})}"


def read_lines(transport: Transport, path: str) -> Iterator[LogLine]:
    """Yield lines from the first endpoint that answers. Raises what it says, `Unreachable` when none does."""
    reasons: list[str] = []
    for endpoint in transport.endpoints:
        try:
            connection = transport.open(endpoint)
        except OSError as error:
            reasons.append(f"{endpoint.name}: {describe(error)}")
            continue
        try:
            connection.sock.settimeout(max(ANSWER_S, SILENCE_S))
            transport.send(connection, "GET", path, None, "application/x-ndjson")
            response = connection.getresponse()
            if response.status == 200:
                transport.prefer(endpoint)
                yield from _lines(response, endpoint.name)
                return
            answer = Answer(endpoint=endpoint, status=response.status, body=response.read())
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{endpoint.name}: {describe(error)}")
            continue
        finally:
            connection.close()
        raise error_from(answer)
    raise unreachable(transport.context, reasons)


def _lines(response: http.client.HTTPResponse, name: str) -> Iterator[LogLine]:
    """Decode lines; what breaks off in the middle is an error of its own, for lines were shown already."""
    try:
        for raw in response:
            if raw.strip():
                yield msgspec.json.decode(raw, type=LogLine)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, UnicodeDecodeError) as error:
        why = describe(error) if not isinstance(error, ValueError) else str(error)
        raise Unreachable(f"cannot read on from {name}: {why}", hint="give the command again") from error
