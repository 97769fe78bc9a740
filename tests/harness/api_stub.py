"""A scripted API: speaks `unitfleet.api` on loopback or a unix socket, and plays what units do.

    with Fleet() as fleet, ApiServer(fleet) as server:
        fleet.script["a.service"] = [running("m1")]
        ... unitctl --endpoint server.url start a ...

It stands in for masters in tests of their clients; several servers may show one fleet.
"""

from __future__ import annotations

import hashlib
import socketserver
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from harness.api_views import TEXT, Look, cluster, copy, explanation, placed, running, starting, unit
from unitfleet import names
from unitfleet.api import (
    Change,
    Changed,
    Changes,
    CopyView,
    ErrorBody,
    Foreseen,
    Items,
    MachineFigures,
    MachineLabels,
    MachineView,
    Move,
    NetLimit,
    NetView,
    Result,
    StreamMessage,
    UnitFile,
    UnitView,
)
from unitfleet.model import Happening, TargetState


class Fleet:
    """Units, machines and the stream of their changes.

    `script` holds what each unit goes through once it is launched, `lowering` once it is stopped or unloaded.
    """

    def __init__(self, *units: UnitView, machines: Sequence[MachineView] = ()) -> None:
        self.rev = 100
        self.units = {view.name: view for view in units}
        self.texts: dict[str, str] = {view.name: TEXT for view in units}
        self.machines = list(machines)
        self.script: dict[str, list[Look]] = {}
        self.lowering: dict[str, list[Look]] = {}
        self.pace_s = 0.02
        self.refusals: dict[str, ErrorBody] = {}
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.output: dict[str, list[str]] = {}
        self.happenings: list[Happening] = []
        self.changes: list[Change] = []
        self.requests: list[str] = []
        self.net: list[NetView] = []
        self.net_soon: list[NetView] = []  # what takes its place once it was looked at after a `net limit`
        self.limits: list[tuple[str, NetLimit]] = []
        self.labels: list[tuple[str, dict[str, str]]] = []
        self.moves: tuple[Move, ...] = ()  # that any change of labels would lead to
        self.figures: list[MachineFigures] = []
        self.messages: list[StreamMessage] = []
        self.changed = threading.Condition()
        self.closed = threading.Event()
        self._players: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.set()
        with self.changed:
            self.changed.notify_all()
        for player in self._players:
            player.join(5)

    def look(self, name: str, **fields: Any) -> None:
        """Make a unit look like this from the next revision on."""
        with self.changed:
            self.rev += 1
            view = msgspec.structs.replace(self.units[name], rev=self.rev, **fields)
            self.units[name] = view
            self._tell(StreamMessage(rev=self.rev, units=(view,)))

    def forget(self, name: str) -> None:
        """Remove a unit."""
        with self.changed:
            self.rev += 1
            self.units.pop(name, None)
            self._tell(StreamMessage(rev=self.rev, gone=(name,)))

    def happen(self, happening: Happening) -> None:
        """Add an event."""
        with self.changed:
            self.rev += 1
            self.happenings.append(happening)
            self._tell(StreamMessage(rev=self.rev, events=(happening,)))

    def change(self, wish: Change) -> Result:
        """Carry out a wish; what follows is played by a thread."""
        with self.changed:
            self.changes.append(wish)
            if wish.name in self.refusals:
                return Result(name=wish.name, error=self.refusals[wish.name])
            view = self.units.get(wish.name)
            if view is None and wish.text is None:
                if wish.if_exists:
                    return Result(name=wish.name)
                body = ErrorBody(code="not_found", message=f"cannot find unit {wish.name}: it was never submitted")
                return Result(name=wish.name, error=body)
            created = view is None
            if (
                view is not None
                and wish.text is not None
                and wish.text != self.texts[wish.name]
                and not wish.replace
            ):
                message = f"cannot submit {wish.name}: it is registered with another text"
                return Result(name=wish.name, error=ErrorBody(code="conflict", message=message))
            if view is not None and view.ok and view.target is wish.target and not wish.restart and not wish.text:
                return Result(name=wish.name, target=view.target)
            self.rev += 1
            if wish.text is not None:
                self.texts[wish.name] = wish.text
                base = view or unit(wish.name)
                spec = hashlib.sha256(wish.text.encode()).hexdigest()
                self.units[wish.name] = msgspec.structs.replace(base, spec=spec, rev=self.rev)
            self._aim(wish)
            result = Result(
                name=wish.name,
                target=self.units[wish.name].target,
                changed=True,
                created=created,
                warnings=self.warnings.get(wish.name, ()),
            )
        self._play(wish)
        return result

    def _aim(self, wish: Change) -> None:
        view = self.units[wish.name]
        again = wish.target is TargetState.LAUNCHED and view.target is wish.target and not view.ok
        if wish.restart or again:
            stale = tuple(msgspec.structs.replace(each, current=False) for each in view.copies)
            view = msgspec.structs.replace(
                view,
                restart=view.restart + 1,
                copies=stale,
                settled=False,
                ok=False,
                phase="restarting",
                pending=None,
            )
        elif wish.target is TargetState.LAUNCHED and view.target is not TargetState.LAUNCHED:
            view = msgspec.structs.replace(view, target=wish.target, phase="pending", settled=False, ok=False)
        elif wish.target is not None and wish.target is not view.target:
            view = msgspec.structs.replace(view, target=wish.target, settled=False, ok=False)
        self.units[wish.name] = msgspec.structs.replace(view, rev=self.rev)
        self._tell(StreamMessage(rev=self.rev, units=(self.units[wish.name],)))

    def _play(self, wish: Change) -> None:
        steps: list[Callable[[], None]]
        name = wish.name
        if wish.restart or wish.target is TargetState.LAUNCHED:
            looks = self.script.get(name, [placed("m1"), starting("m1"), running("m1")])
            steps = [_step(self, name, look) for look in looks]
        elif wish.target is TargetState.DESTROYED:
            steps = [lambda: self.look(name, phase="destroying"), lambda: self.forget(name)]
        elif wish.target is not None:
            calm = {"phase": wish.target.value, "settled": True, "ok": True, "pending": None}
            copies: tuple[CopyView, ...] = ()
            if wish.target is TargetState.LOADED:
                copies = (copy("m1", "loaded", wanted="loaded"),)
            steps = [_step(self, name, look) for look in self.lowering.get(name, [{**calm, "copies": copies}])]
        else:
            return

        def play() -> None:
            for step in steps:
                if self.closed.wait(self.pace_s):
                    return
                with suppress(KeyError):  # destroyed meanwhile
                    step()

        player = threading.Thread(target=play, daemon=True)
        self._players.append(player)
        player.start()

    def _tell(self, message: StreamMessage) -> None:
        self.messages.append(message)
        self.changed.notify_all()


def _step(fleet: Fleet, name: str, look: Look) -> Callable[[], None]:
    return lambda: fleet.look(name, **look)


class _TcpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


class ApiServer:
    """Serves a fleet. `token` is asked for; `break_streams`: how many streams break off after one message."""

    def __init__(
        self, fleet: Fleet, *, socket: Path | None = None, token: str = "", break_streams: int = 0
    ) -> None:
        self.fleet = fleet
        self.token = token
        self.break_streams = break_streams
        self.streams = 0
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server: socketserver.BaseServer
        if socket is not None:
            self._server = _UnixServer(str(socket), handler)
            self.url = f"unix://{socket}"
        else:
            self._server = _TcpServer(("127.0.0.1", 0), handler)
            self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fleet.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: ApiServer

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        self.stub.fleet.requests.append(format % args)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._denied():
            return
        fleet, parts = self.stub.fleet, self._parts()
        match parts:
            case ["units"]:
                wishes = msgspec.json.decode(body, type=Changes)
                results = tuple(fleet.change(wish) for wish in wishes.changes)
                self._answer(202, Changed(rev=fleet.rev, items=results))
            case ["machines", asked, "labels"]:
                labels = msgspec.json.decode(body, type=MachineLabels).metadata
                fleet.labels.append((asked, labels))
                self._answer(202, {"rev": fleet.rev})
            case ["machines", asked, verb]:
                fits = [view for view in fleet.machines if view.name == asked or view.id.startswith(asked)]
                if not fits:
                    self._error(404, "not_found", f"cannot find machine {asked}")
                    return
                fleet.machines = [
                    msgspec.structs.replace(view, cordoned=verb == "cordon") if view in fits else view
                    for view in fleet.machines
                ]
                self._answer(202, {"rev": fleet.rev})
            case ["cluster", "hold" | "release"]:
                self._answer(202, {"rev": fleet.rev})
            case ["net", name] if name in fleet.refusals:
                self._answer(409, fleet.refusals[name])
            case ["net", name] if name in fleet.units:
                fleet.limits.append((name, msgspec.json.decode(body, type=NetLimit)))
                result = Result(name=name, target=fleet.units[name].target, changed=True)
                self._answer(202, Changed(rev=fleet.rev, items=(result,)))
            case _:
                self._error(404, "not_found", f"nothing at {self.path}")

    def do_GET(self) -> None:
        if self._denied():
            return
        fleet, parts = self.stub.fleet, self._parts()
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        with fleet.changed:
            match parts:
                case ["units"]:
                    pattern = query.get("name", "*")
                    views = [view for name, view in fleet.units.items() if names.glob_match(pattern, name)]
                    self._answer(200, Items(rev=fleet.rev, items=tuple(views)))
                    return
                case ["units", name] if name in fleet.units:
                    self._answer(200, UnitFile(unit=fleet.units[name], text=fleet.texts[name]))
                    return
                case ["net"]:
                    shown = [each for each in fleet.net if names.glob_match(query.get("unit", "*"), each.unit)]
                    self._answer(200, Items(rev=fleet.rev, items=tuple(shown)))
                    if fleet.limits and fleet.net_soon:
                        fleet.net, fleet.net_soon = fleet.net_soon, []
                    return
                case ["figures"]:
                    self._figures()
                    return
                case ["machines", asked, "labels"]:
                    pairs = (pair.partition("=") for pair in query["set"].split(","))
                    metadata = {key: value for key, _, value in pairs if value}
                    self._answer(
                        200,
                        Foreseen(
                            rev=fleet.rev, machine=asked, machine_name=asked, metadata=metadata, moves=fleet.moves
                        ),
                    )
                    return
                case ["machines"]:
                    self._answer(200, Items(rev=fleet.rev, items=tuple(fleet.machines)))
                    return
                case ["explain", name] if name in fleet.units:
                    self._answer(200, explanation(fleet.units[name]))
                    return
                case ["events"]:
                    about = query.get("unit")
                    chosen = [each for each in fleet.happenings if about in (None, each.unit)]
                    self._answer(200, Items(rev=fleet.rev, items=tuple(chosen[-int(query.get("limit", "20")) :])))
                    return
                case ["cluster"]:
                    self._answer(
                        200, cluster(fleet.rev, tuple(view for view in fleet.units.values() if not view.ok))
                    )
                    return
                case ["version"]:
                    self._answer(200, {"version": "0.1.0", "api": "unitfleet/v1"})
                    return
        match parts:
            case ["logs", name] if name in fleet.units:
                self._logs(name, int(query.get("lines", "10")), follow=query.get("follow") == "true")
            case ["stream"]:
                self._stream(query)
            case [_, name]:
                self._error(404, "not_found", f"cannot find unit {name}: it was never submitted")
            case _:
                self._error(404, "not_found", f"nothing at {self.path}")

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.removeprefix("/v1/").split("/")]

    def _figures(self) -> None:
        raw = b"".join(msgspec.json.encode(line) + b"\n" for line in self.stub.fleet.figures)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _denied(self) -> bool:
        if self.stub.token and self.headers.get("Authorization") != f"Bearer {self.stub.token}":
            self._error(401, "denied", "cannot let you in: the token is not one of this cluster")
            return True
        return False

    def _answer(self, status: int, body: Any) -> None:
        raw = msgspec.json.encode(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(raw)

    def _error(self, status: int, code: str, message: str) -> None:
        self._answer(status, ErrorBody(code=code, message=message))

    def _begin(self, kind: str) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    def _logs(self, name: str, lines: int, *, follow: bool) -> None:
        fleet, sent = self.stub.fleet, 0
        self._begin("application/x-ndjson")
        with suppress(ConnectionError):
            sent = max(0, len(fleet.output.get(name, [])) - lines)
            while True:
                written = list(fleet.output.get(name, []))  # it grows meanwhile
                for number, text in list(enumerate(written))[sent:]:
                    line = {"at": 1000.0 + number, "stream": "stdout", "text": text, "machine": "m1"}
                    self._chunk(msgspec.json.encode(line) + b"\n")
                sent = len(written)
                if not follow or fleet.closed.wait(0.02):
                    break
            self._chunk(b"")

    def _stream(self, query: dict[str, str]) -> None:
        fleet, stub = self.stub.fleet, self.stub
        stub.streams += 1
        asked = set(query["units"].split(",")) if "units" in query else None
        position = int(query.get("since", "0"))
        breaking = stub.streams <= stub.break_streams
        self._begin("text/event-stream")
        with suppress(ConnectionError):
            if not position:
                with fleet.changed:
                    views = tuple(view for name, view in fleet.units.items() if asked is None or name in asked)
                    snapshot = StreamMessage(rev=fleet.rev, snapshot=True, units=views)
                    position = fleet.rev
                self._event(snapshot)
            while not fleet.closed.is_set():
                with fleet.changed:
                    fresh = [each for each in fleet.messages if each.rev > position]
                    if not fresh:
                        fleet.changed.wait(0.5)
                for message in fresh:
                    position = message.rev
                    if _about(message, asked):
                        self._event(message)
                        if breaking:
                            return  # without the last chunk: it breaks off
                if not fresh:
                    self._chunk(b": still here\n\n")

    def _event(self, message: StreamMessage) -> None:
        self._chunk(b"id: %d\ndata: %s\n\n" % (message.rev, msgspec.json.encode(message)))
        self.wfile.flush()


def _about(message: StreamMessage, asked: set[str] | None) -> bool:
    """Whether a message holds anything that was asked for."""
    if asked is None or message.events:
        return True
    return bool(asked & {*(view.name for view in message.units), *message.gone})
