"""The API as functions: typed answers in, errors as the leaves that a command handles."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from unitctl.context import Invocation, find
from unitctl.failures import Conflict, Denied, Failure, Unreachable
from unitctl.render import escape, warn
from unitctl.transport import ANSWER_S, FOREIGN, TOO_MANY, Answer, Transport, error_of
from unitfleet import fleetapi
from unitfleet.accessapi import AuditTrail, SecretOrder, SecretSet, SecretView, TokenMade, TokenOrder, TokenView
from unitfleet.api import (
    Change,
    Changed,
    Changes,
    ClusterStatus,
    ErrorBody,
    EtcdProtection,
    Explanation,
    Foreseen,
    ImageView,
    LogLine,
    MachineFigures,
    MachineLabels,
    MachineView,
    NetLimit,
    NetView,
    Revision,
    Scenes,
    UnitFile,
    UnitView,
    WarmOrder,
)
from unitfleet.errors import InvalidName, InvalidUnit, NotFound, OutcomeUnknown, Refused, UnitfleetError
from unitfleet.findings import Diagnosis
from unitfleet.joinapi import JoinTokenMade, JoinTokenView, JoinTokenWish
from unitfleet.model import Happening, Role

T = TypeVar("T")
P = TypeVar("P", fleetapi.UnitPage, fleetapi.StatePage, fleetapi.MachinePage)

# Above this, a query goes without its list of names: servers bound the request line at 8 KiB.
LONGEST_QUERY = 4000

_TOKEN_HINT = (
    "a context names what opens the API: token-file (or UNITCTL_TOKEN_FILE), or an admin's cert-file and key-file"
)

# A command of a thousand units is as many writes for the master.
WRITE_S = 60.0

PATIENCE_S = 30.0
"""For how long a request that was too many is sent again: nothing of it was carried out."""


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
        self._told_of_waiting = False

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

    def view(self, name: str) -> UnitView:
        """A unit without its text, which not everybody may read; raises NotFound."""
        found = self.units(literal(name)).items
        shown = found[0] if found else self.explain(name).unit  # which knows the nearest name for its error
        if shown is None:
            raise NotFound(f"cannot find unit {name}: it was never submitted")
        return shown

    def unit(self, name: str) -> UnitFile:
        """A unit and the text it was submitted with; raises NotFound."""
        return self._call("GET", f"/v1/units/{quote(name, safe='')}", UnitFile)

    def fleet_units(self) -> list[fleetapi.Unit]:
        """Every unit, with its text, as fleet's API tells it."""
        return [unit for page in self._pages("units", fleetapi.UnitPage) for unit in page.units]

    def fleet_states(self) -> list[fleetapi.State]:
        """What machines report of units, as fleet's API tells it."""
        return [state for page in self._pages("state", fleetapi.StatePage) for state in page.states]

    def fleet_machines(self) -> list[fleetapi.Machine]:
        """The machines that are there, as fleet's API tells it."""
        return [machine for page in self._pages("machines", fleetapi.MachinePage) for machine in page.machines]

    def machines(self) -> tuple[int, tuple[MachineView, ...]]:
        """Every machine that was ever seen, and the revision of the answer."""
        return self._list("/v1/machines", {}, tuple[MachineView, ...])

    def foresee_labels(self, machine: str, labels: Mapping[str, str]) -> Foreseen:
        """Which units would move if this metadata were set on a machine; an empty value takes a key away."""
        query = {"set": ",".join(f"{key}={value}" for key, value in labels.items())}
        return self._call("GET", f"/v1/machines/{quote(machine, safe='')}/labels?{urlencode(query)}", Foreseen)

    def label_machine(self, machine: str, labels: Mapping[str, str]) -> int:
        """Set metadata of a machine. Returns the revision."""
        body = msgspec.json.encode(MachineLabels(metadata=dict(labels)))
        return self._call("POST", f"/v1/machines/{quote(machine, safe='')}/labels", Revision, body).rev

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

    def images(self, reference: str = "") -> tuple[int, tuple[ImageView, ...]]:
        """What machines are to hold, and hold; of one image when it is named."""
        return self._list("/v1/images", {"image": reference} if reference else {}, tuple[ImageView, ...])

    def warm_image(self, reference: str, where: dict[str, str]) -> int:
        """Let machines with this metadata hold an image. Returns the revision."""
        body = msgspec.json.encode(WarmOrder(image=reference, where=where))
        return self._call("POST", "/v1/images/warm", Revision, body).rev

    def unwarm_image(self, reference: str) -> int:
        """Take `warm_image` back; raises NotFound. Returns the revision."""
        body = msgspec.json.encode(WarmOrder(image=reference))
        return self._call("POST", "/v1/images/unwarm", Revision, body).rev

    def scenes(self, name: str = "") -> Scenes:
        """What was kept of failed copies: of all units in brief, or of one in full; raises NotFound."""
        return self._call("GET", scenes_path(name), Scenes)

    def remove_scenes(self, name: str) -> Scenes:
        """Remove what was kept of a unit's failed copies; returns what that was. Raises NotFound."""
        return self._call("POST", f"{scenes_path(name)}/rm", Scenes, b"", answer_s=WRITE_S)

    def net(self, names: Sequence[str] | None = None, *, min_revision: int = 0) -> tuple[int, tuple[NetView, ...]]:
        """The bandwidth of these units, or of all that have any said of it, and the revision of the answer."""
        query = {} if names is None else {"unit": literal(names[0]) if len(names) == 1 else "*"}
        if min_revision:
            query["min_revision"] = str(min_revision)
        rev, items = self._list("/v1/net", query, tuple[NetView, ...])
        return rev, items if names is None else tuple(item for item in items if item.unit in set(names))

    def limit(self, name: str, wish: NetLimit) -> Changed:
        """Change a unit's bandwidth at once; raises NotFound, Refused."""
        return self._call("POST", f"/v1/net/{quote(name, safe='')}", Changed, msgspec.json.encode(wish))

    def figures(self) -> list[MachineFigures]:
        """What every machine uses now, one for each that is there."""
        answer = self._get("/v1/figures", {"once": "true"})
        return [self._decode(answer, line, MachineFigures) for line in answer.body.splitlines() if line.strip()]

    def cluster(self) -> ClusterStatus:
        """How the cluster is."""
        return self._call("GET", "/v1/cluster", ClusterStatus)

    def doctor(self) -> Diagnosis:
        """What is wrong with the cluster, or will be."""
        return self._call("GET", "/v1/doctor", Diagnosis, answer_s=WRITE_S)

    def command_cluster(self, verb: str) -> int:
        """Hold or release the brake."""
        return self._call("POST", f"/v1/cluster/{verb}", Revision, b"").rev

    def protect_etcd(self, on: bool) -> EtcdProtection:
        """Let etcd ask who writes what, or ask nobody any more."""
        verb = "protect-etcd" if on else "unprotect-etcd"
        return self._call("POST", f"/v1/cluster/{verb}", EtcdProtection, b"", answer_s=WRITE_S)

    def create_token(self, name: str, role: Role, ttl_s: float | None) -> TokenMade:
        """Make a token; its secret is in this answer alone."""
        body = msgspec.json.encode(TokenOrder(name=name, role=role, ttl_s=ttl_s))
        return self._call("POST", "/v1/tokens", TokenMade, body)

    def tokens(self) -> tuple[int, tuple[TokenView, ...]]:
        """Every token, and the revision of the answer."""
        return self._list("/v1/tokens", {}, tuple[TokenView, ...])

    def remove_token(self, token: str) -> int:
        """Remove a token by its name or id; raises NotFound. Returns the revision."""
        return self._call("DELETE", f"/v1/tokens/{quote(token, safe='')}", Revision).rev

    def set_secret(self, name: str, value: bytes) -> SecretSet:
        """Give a secret its value; raises InvalidName, Refused."""
        body = msgspec.json.encode(SecretOrder(name=name, value=value))
        return self._call("POST", "/v1/secrets", SecretSet, body)

    def secrets(self) -> tuple[int, tuple[SecretView, ...]]:
        """Every secret without its value, and the revision of the answer."""
        return self._list("/v1/secrets", {}, tuple[SecretView, ...])

    def remove_secret(self, name: str) -> int:
        """Remove a secret; raises NotFound. Returns the revision."""
        return self._call("DELETE", f"/v1/secrets/{quote(name, safe='')}", Revision).rev

    def audit(self, *, since: float, caller: str, unit: str, limit: int) -> AuditTrail:
        """Who changed what, the newest, oldest first."""
        words = {"since": f"{since:.3f}" if since else "", "caller": caller, "unit": unit, "limit": str(limit)}
        query = urlencode({key: value for key, value in words.items() if value})
        return self._call("GET", f"/v1/audit?{query}", AuditTrail, answer_s=WRITE_S)

    def make_join_token(self, wish: JoinTokenWish) -> JoinTokenMade:
        """Make a token by which hosts join; it is told this once."""
        return self._call("POST", "/v1/join-tokens", JoinTokenMade, msgspec.json.encode(wish))

    def join_tokens(self) -> tuple[int, tuple[JoinTokenView, ...]]:
        """The tokens that are not over, and the revision of the answer."""
        return self._list("/v1/join-tokens", {}, tuple[JoinTokenView, ...])

    def remove_join_token(self, token: str) -> int:
        """Make a token good for nobody; raises NotFound. Returns the revision."""
        return self._call("DELETE", f"/v1/join-tokens/{quote(token, safe='')}", Revision).rev

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

    def _pages(self, resource: str, kind: type[P]) -> Iterator[P]:
        token = ""
        while True:
            answer = self._get(f"{fleetapi.PREFIX}/{resource}", {"nextPageToken": token} if token else {})
            page = self._decode(answer, answer.body, kind)
            yield page
            if not (token := page.next_page_token):
                return

    def _get(self, path: str, query: dict[str, str]) -> Answer:
        answer = self._ask("GET", f"{path}?{urlencode(query)}" if query else path)
        if not 200 <= answer.status < 300:
            raise error_from(answer)
        return answer

    def _ask(self, method: str, path: str, body: bytes | None = None, *, answer_s: float = ANSWER_S) -> Answer:
        """Send a request, again while it is too early for it, and say once when the answer is old."""
        answer = self.transport.request(method, path, body, answer_s=answer_s)
        until = time.monotonic() + PATIENCE_S
        while answer.status == TOO_MANY and time.monotonic() + answer.retry_s < until:
            if not self._told_of_waiting:
                warn(f"{error_of(answer).message}; waiting for {answer.endpoint.name}")
                self._told_of_waiting = True
            time.sleep(answer.retry_s)
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


def scenes_path(name: str) -> str:
    """Where kept copies are asked for."""
    return f"/v1/scenes/{quote(name, safe='')}" if name else "/v1/scenes"


def logs_path(name: str, *, lines: int, machine: str = "") -> str:
    """Where the last lines of a unit are read."""
    query = {"lines": str(lines), "machine": machine}
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
        case "expired" | "forbidden":
            return Denied(body.message, hint=hint)
        case "unknown_outcome":
            return OutcomeUnknown(body.message, hint=hint or "look at the units, and give the command again")
        case "unavailable":
            return Unreachable(body.message, hint=hint, details=body.problems)
    match status:
        case 401 | 403:
            return Denied(body.message, hint=_TOKEN_HINT)
        case 404 if body.code != FOREIGN:
            return NotFound(body.message, hint=hint)
        case 409 | 412:
            return Conflict(body.message, hint=hint)
        case 421 | 429:
            return Unreachable(body.message, hint=hint)
        case _ if body.code == FOREIGN:
            return Unreachable(body.message, hint=hint)
        case 502 | 503 | 504:
            return Unreachable(body.message, hint=hint)
        case _:
            return Failure(body.message, hint=hint, details=body.problems)
