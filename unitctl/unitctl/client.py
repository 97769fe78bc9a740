"""The API as functions: typed answers in, errors as the leaves that a command handles."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from unitctl.context import Invocation, find
from unitctl.failures import Conflict, Denied, Failure, Unreachable
from unitctl.render import escape, warn
from unitctl.transport import ANSWER_S, FOREIGN, Answer, Transport, error_of
from unitfleet.api import (
    Change,
    Changed,
    Changes,
    ClusterStatus,
    ErrorBody,
    Explanation,
    LogLine,
    MachineView,
    Revision,
    UnitFile,
    UnitView,
)
from unitfleet.errors import InvalidName, InvalidUnit, NotFound, OutcomeUnknown, Refused, UnitfleetError
from unitfleet.model import Happening

T = TypeVar("T")

# Above this, a query goes without its list of names: servers bound the request line at 8 KiB.
LONGEST_QUERY = 4000

_TOKEN_HINT = "name the file with the token in a context (token-file) or in UNITCTL_TOKEN_FILE"

# A command of a thousand units is as many writes for the master.
WRITE_S = 60.0


class Listed(msgspec.Struct, frozen=True):
    """A list of the API before its items are read."""

    rev: int
    items: msgspec.Raw


class Units(msgspec.Struct, frozen=True):
    """Units as of one revision."""

    rev: int
    items: tuple[UnitView, ...]


class Api:
    """Speaks `unitfleet.api` through a transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._told_of_staleness = False

    def change(self, changes: Iterable[Change]) -> Changed:
        """Carry out many wishes in one call; what became of each stands in its result."""
        body = msgspec.json.encode(Changes(changes=tuple(changes)))
        return self._call("POST", "/v1/units", Changed, body, answer_s=WRITE_S)

    def units(self, pattern: str = "", *, min_revision: int = 0) -> Units:
        """All units, or those whose names match a glob, as of `min_revision` or later."""
        query = {"name": pattern} if pattern else {}
        if min_revision:
            query["min_revision"] = str(min_revision)
        rev, items = self._list("/v1/units", query, tuple[UnitView, ...])
        return Units(rev=rev, items=items)

    def known(self, names: Iterable[str], *, min_revision: int = 0) -> Units:
        """Those of `names` that are registered: asked one by one when they are few."""
        wanted = sorted(set(names))
        if len(wanted) > 4:
            listed = self.units(min_revision=min_revision)
            return Units(rev=listed.rev, items=tuple(view for view in listed.items if view.name in set(wanted)))
        lists = [self.units(literal(name), min_revision=min_revision) for name in wanted]
        rev = min((listed.rev for listed in lists), default=0)
        return Units(rev=rev, items=tuple(view for listed in lists for view in listed.items))

    def unit(self, name: str) -> UnitFile:
        """A unit and the text it was submitted with; raises NotFound."""
        return self._call("GET", f"/v1/units/{quote(name, safe='')}", UnitFile)

    def machines(self) -> tuple[int, tuple[MachineView, ...]]:
        """Every machine that was ever seen, and the revision of the answer."""
        return self._list("/v1/machines", {}, tuple[MachineView, ...])

    def command_machine(self, machine: str, verb: str) -> int:
        """Cordon, drain, … a machine, by name, id or unique prefix. Returns the revision."""
        return self._call("POST", f"/v1/machines/{quote(machine, safe='')}/{verb}", Revision, b"").rev

    def explain(self, name: str) -> Explanation:
        """Ask why a unit is where it is, or nowhere."""
        return self._call("GET", f"/v1/explain/{quote(name, safe='')}", Explanation)

    def events(self, *, unit: str = "", machine: str = "", limit: int = 0) -> tuple[int, tuple[Happening, ...]]:
        """The latest events, oldest first, and the revision of the answer."""
        query = {"unit": unit, "machine": machine, "limit": str(limit) if limit else ""}
        rev, items = self._list("/v1/events", {k: v for k, v in query.items() if v}, tuple[Happening, ...])
        return rev, tuple(sorted(items, key=lambda happening: happening.at))

    def logs(self, name: str, *, lines: int, machine: str = "") -> list[LogLine]:
        """The last lines that a unit wrote."""
        answer = self._get(logs_path(name, lines=lines, machine=machine), {})
        return [self._decode(answer, line, LogLine) for line in answer.body.splitlines() if line.strip()]

    def cluster(self) -> ClusterStatus:
        """How the cluster is."""
        return self._call("GET", "/v1/cluster", ClusterStatus)

    def command_cluster(self, verb: str) -> int:
        """Hold or release the brake."""
        return self._call("POST", f"/v1/cluster/{verb}", Revision, b"").rev

    def version(self) -> dict[str, Any]:
        """What the master that answers says of itself."""
        return self._call("GET", "/v1/version", dict[str, Any])

    def _call(
        self, method: str, path: str, kind: type[T], body: bytes | None = None, *, answer_s: float = ANSWER_S
    ) -> T:
        answer = self._ask(method, path, body, answer_s=answer_s)
        if not 200 <= answer.status < 300:
            raise error_from(answer)
        return self._decode(answer, answer.body, kind)

    def _list(self, path: str, query: dict[str, str], kind: type[T]) -> tuple[int, T]:
        answer = self._get(path, query)
        listed = self._decode(answer, answer.body, Listed)
        return listed.rev, self._decode(answer, bytes(listed.items), kind)

    def _get(self, path: str, query: dict[str, str]) -> Answer:
        answer = self._ask("GET", f"{path}?{urlencode(query)}" if query else path)
        if not 200 <= answer.status < 300:
            raise error_from(answer)
        return answer

    def _ask(self, method: str, path: str, body: bytes | None = None, *, answer_s: float = ANSWER_S) -> Answer:
        """Send a request, and say once when the answer is old."""
        answer = self.transport.request(method, path, body, answer_s=answer_s)
        if answer.stale and answer.status < 300 and not self._told_of_staleness:
            warn(f"the store is silent: this is how it was {answer.stale} s ago")
            self._told_of_staleness = True
        return answer

    def _decode(self, answer: Answer, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unreachable(
                f"cannot understand the answer of {answer.endpoint.name}: {error}",
                hint="is this endpoint the API of a unit-master, and of this version?",
            ) from error


def connect(invocation: Invocation) -> Api:
    """Find the API as the user named it; nothing is sent yet."""
    context = find(invocation, os.environ)
    for warning in context.warnings:
        sys.stderr.write(f"warning: {escape(warning)}\n")
    return Api(Transport(context))


def literal(name: str) -> str:
    """The glob that matches this name alone."""
    return name.replace("\\", "\\\\")


def logs_path(name: str, *, lines: int, machine: str = "", follow: bool = False) -> str:
    """Where the output of a unit is read."""
    query = {"lines": str(lines), "machine": machine, "follow": "true" if follow else ""}
    return f"/v1/logs/{quote(name, safe='')}?{urlencode({k: v for k, v in query.items() if v})}"


def error_from(answer: Answer) -> UnitfleetError:
    """The error of an answer, as the leaf a command handles."""
    return failure(error_of(answer), answer.status)


def failure(body: ErrorBody, status: int = 0) -> UnitfleetError:
    """Make an exception of an `ErrorBody`; the word decides, the HTTP status where no word is known."""
    hint = body.hint or None
    match body.code:
        case "invalid_name":
            return InvalidName(body.message, hint=hint)
        case "invalid_unit":
            return InvalidUnit(body.message, body.problems, hint=hint)
        case "not_found":
            return NotFound(body.message, hint=hint)
        case "refused":
            return Refused(body.message, hint=hint)
        case "conflict":
            return Conflict(body.message, hint=hint, details=body.problems)
        case "denied":
            return Denied(body.message, hint=_TOKEN_HINT)
        case "unknown_outcome":
            return OutcomeUnknown(body.message, hint=hint or "look at the units, and give the command again")
        case "unavailable":
            return Unreachable(body.message, hint=hint, details=body.problems)
    match status:
        case 401 | 403:
            return Denied(body.message, hint=_TOKEN_HINT)
        case 409 | 412:
            return Conflict(body.message, hint=hint)
        case _ if body.code == FOREIGN:
            return Unreachable(body.message, hint=hint)
        case 502 | 503 | 504:
            return Unreachable(body.message, hint=hint)
        case _:
            return Failure(body.message, hint=hint, details=body.problems)
