"""`unit-agent local …`: this host's units by its agent's socket, also when store and masters are away."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from unitfleet.names import complete

SOCKET = "/run/unitfleet/agent.sock"

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TIMEOUT = 124

_RUNNING = ("starting", "running", "stopping", "restarting")


class LocalError(Exception):
    """The agent refused, or can't be reached."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class _Connection(http.client.HTTPConnection):
    """HTTP by a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("agent")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def main(argv: Sequence[str]) -> int:
    """Do one command and return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except LocalError as error:
        print(f"unit-agent local: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return EXIT_FAILED
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unit-agent local", description="This host's units, by its own agent.")
    parser.add_argument("--socket", default=os.environ.get("UNITFLEET_SOCKET", SOCKET), help="the agent's socket")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    ps = commands.add_parser("ps", help="show this host's units and how its agent is")
    ps.add_argument("-o", "--output", choices=("table", "json"), default="table")
    ps.set_defaults(run=_ps)
    for verb, text, run in (
        ("start", "let units run here again, or try again what failed", _start),
        ("stop", "stop units here until `local start` or a new order of the cluster", _stop),
    ):
        command = commands.add_parser(verb, help=text)
        command.add_argument("units", nargs="+", metavar="UNIT")
        command.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
        command.set_defaults(run=run)
    logs = commands.add_parser("logs", help="show the output of a unit")
    logs.add_argument("unit", metavar="UNIT")
    logs.add_argument("-n", "--lines", type=int, default=100)
    logs.add_argument("-f", "--follow", action="store_true")
    logs.set_defaults(run=_logs)
    accept = commands.add_parser("accept-store", help="trust the store as it is now: ends keep-everything mode")
    accept.set_defaults(run=_accept_store)
    return parser


def _ask(path: str, method: str, target: str) -> http.client.HTTPResponse:
    """Ask the agent; raises `LocalError` for anything but success."""
    connection = _Connection(path)
    try:
        connection.request(method, target)
        response = connection.getresponse()
    except OSError as error:
        raise LocalError(
            f"cannot reach the agent at {path}: {(error.strerror or str(error)).lower()}",
            "is unit-agent running, as this user? --socket PATH says where it listens",
        ) from error
    if response.status >= 300:
        raw = response.read()
        try:
            told = json.loads(raw)
            raise LocalError(told["message"], told.get("hint", ""))
        except (ValueError, KeyError, TypeError):
            raise LocalError(f"cannot do this: the agent answered {response.status}") from None
    return response


def _status(path: str) -> dict[str, Any]:
    status: dict[str, Any] = json.load(_ask(path, "GET", "/local/ps"))
    return status


def _phase(unit: dict[str, Any]) -> str:
    return str((unit["state"] or {}).get("phase", ""))


def _ps(arguments: argparse.Namespace) -> int:
    status = _status(arguments.socket)
    if arguments.output == "json":
        print(json.dumps(status))
        return 0
    store = f"store away: {status['store']}" if status["store"] else "store reached"
    print(f"{status['name']} ({status['machine']}): {store}")
    for text in (status["keep_everything"], status["unsaved"]):
        if text:
            print(f"attention: {text}")
    for driver, trouble in status["drivers"].items():
        if trouble:
            print(f"attention: {driver}: {trouble}")
    rows = [("UNIT", "WANTED", "STATE", "PID", "MESSAGE")]
    for unit in status["units"]:
        state = unit["state"] or {}
        held = "held" if unit["held"] else unit["wanted"] or "-"
        rows.append(
            (unit["unit"], held, _phase(unit) or "-", str(state.get("pid") or "-"), state.get("message", ""))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join((*cells, row[4])).rstrip())
    return 0


def _start(arguments: argparse.Namespace) -> int:
    return _order(arguments, "start", ("running", "finished", "failed"))


def _stop(arguments: argparse.Namespace) -> int:
    return _order(arguments, "stop", ())


def _order(arguments: argparse.Namespace, verb: str, ends: tuple[str, ...]) -> int:
    """Order each unit, then wait for all: with `ends` for one of these phases, else for not running."""
    units = [complete(unit) for unit in arguments.units]
    for unit in units:
        _ask(arguments.socket, "POST", f"/local/{verb}/{quote(unit, safe='')}").read()
    waiting, failed = set(units), False
    deadline = time.monotonic() + arguments.timeout
    while waiting:
        phases = {unit["unit"]: _phase(unit) for unit in _status(arguments.socket)["units"]}
        for unit in sorted(waiting):
            phase = phases.get(unit, "")
            if (phase in ends) if ends else (phase not in _RUNNING):
                print(f"{unit}: {phase or 'gone'}")
                failed = failed or (bool(ends) and phase == "failed")
                waiting.discard(unit)
        if waiting and time.monotonic() > deadline:
            print(f"still waiting for {', '.join(sorted(waiting))}", file=sys.stderr)
            return EXIT_TIMEOUT
        if waiting:
            time.sleep(0.1)
    return EXIT_FAILED if failed else 0


def _logs(arguments: argparse.Namespace) -> int:
    query = f"lines={arguments.lines}" + ("&follow=1" if arguments.follow else "")
    response = _ask(arguments.socket, "GET", f"/local/logs/{quote(complete(arguments.unit), safe='')}?{query}")
    for line in response:
        print(json.loads(line)["text"], flush=arguments.follow)
    return 0


def _accept_store(arguments: argparse.Namespace) -> int:
    _ask(arguments.socket, "POST", "/local/accept-store").read()
    print("accepted the store as it is now")
    return 0
