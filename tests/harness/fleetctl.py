"""fleetctl 1.0 as its server sees it: the same requests, in the same order, with the same headers; and its words.

It stands in for the real one, which nobody packages any more: what it sends and how long it waits is taken from
fleet's sources, what it says from transcripts of it. `sent` has the requests of the last command.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from unitfleet import names, unitfile, xfleet
from unitfleet.unitfile import UnitFile

PAUSE_S = 0.25
WINDOW_S = 2.0
FOREVER_S = 30.0
"""In which a command of fleetctl's that waits for ever is given up here."""

SUFFIXES = frozenset("service socket timer path device mount automount".split())

Unit = dict[str, Any]


class Failed(Exception):
    """A command ended with 1; the last line that it wrote."""


@dataclass(slots=True)
class Fleetctl:
    """`endpoint` as fleetctl takes it: `unix:///path`, or `http://user:password@host:port`."""

    endpoint: str
    folder: Path
    sent: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    # --- verbs

    def submit(self, *units: str, replace: bool = False) -> None:
        """`fleetctl submit`."""
        self._begin()
        self._create(units, replace, ("inactive",))

    def load(self, *units: str, replace: bool = False, no_block: bool = False, attempts: int = 0) -> None:
        """`fleetctl load`."""
        self._begin()
        self._create(units, replace, ("inactive", "loaded"))
        self._wait(self._set_states(units, "loaded"), "loaded", no_block=no_block, attempts=attempts)

    def start(self, *units: str, replace: bool = False, no_block: bool = False, attempts: int = 0) -> None:
        """`fleetctl start`."""
        self._begin()
        self._create(units, replace, ("inactive", "loaded", "launched"))
        starting = []
        for unit in self._set_states(units, "launched"):
            if _is_global(unit):
                self.said.append(f"Triggered global unit {unit['name']} start")
            else:
                starting.append(unit)
        self._wait(starting, "launched", no_block=no_block, attempts=attempts)
        if not no_block:
            self._wait_for_active(starting)

    def stop(self, *units: str) -> None:
        """`fleetctl stop`."""
        self._begin()
        stopping = []
        for unit in self._find(units):
            if not _is_global(unit) and unit["currentState"] == "inactive":
                raise Failed(f"Unable to stop unit {unit['name']} in state inactive")
            if unit["desiredState"] != "loaded":
                self._put(unit["name"], {"desiredState": "loaded", "name": unit["name"]})
                stopping += [] if _is_global(unit) else [unit]
        self._wait(stopping, "loaded")

    def unload(self, *units: str) -> None:
        """`fleetctl unload`."""
        self._begin()
        unloading = []
        for unit in self._find(units):
            if unit["desiredState"] != "inactive":
                self._put(unit["name"], {"desiredState": "inactive", "name": unit["name"]})
                unloading += [] if _is_global(unit) else [unit]
        self._wait(unloading, "inactive")

    def restart(self, *units: str) -> None:
        """`fleetctl restart`, which stops and starts."""
        self.stop(*units)
        self.start(*units)

    def destroy(self, *units: str) -> None:
        """`fleetctl destroy`, which waits for nothing."""
        self._begin()
        found = self._find(units)
        if not found:
            self.said.append("Units not found in registry")
        for unit in found:
            self._ask("DELETE", f"units/{quote(unit['name'], safe='@')}")
            self.said.append(f"Destroyed {unit['name']}")

    def cat(self, unit: str) -> str:
        """`fleetctl cat`."""
        self._begin()
        found = self._unit(mangled(unit))
        if found is None:
            raise Failed(f"Unit {mangled(unit)} not found")
        return _file(found["options"]).serialize()

    def list_unit_files(self) -> dict[str, Unit]:
        """`fleetctl list-unit-files`."""
        self._begin()
        return {unit["name"]: unit for unit in self._pages("units", "units")}

    def list_units(self) -> dict[str, list[dict[str, str]]]:
        """`fleetctl list-units`: what machines report of each unit."""
        self._begin()
        found: dict[str, list[dict[str, str]]] = {}
        for state in self._pages("state", "states"):
            found.setdefault(state["name"], []).append(state)
        return found

    def list_machines(self) -> dict[str, dict[str, Any]]:
        """`fleetctl list-machines`."""
        self._begin()
        return {machine["id"]: machine for machine in self._pages("machines", "machines")}

    # --- how it creates

    def _create(self, units: Sequence[str], replace: bool, replaceable: Sequence[str]) -> None:
        for argument in units:
            name = mangled(argument)
            known = self._unit(name)
            local = self._local(name)
            if known is not None:
                held = _file(known["options"])
                if not replace:
                    if local is not None and local.fleet_hash() != held.fleet_hash():
                        self.said.append(
                            f"WARNING: Unit {name} in registry differs from local unit file {argument}."
                        )
                    continue
                if local is None or local.fleet_hash() == held.fleet_hash():
                    self.said.append(f"Found same Unit({name}) in Registry, nothing to do")
                    continue
                if known["desiredState"] not in replaceable:
                    self.said.append(f"Warning: can not replace Unit({name}) in state '{known['desiredState']}'")
                    continue
            self._submit(name, local or self._template(name))

    def _template(self, name: str) -> UnitFile:
        template = names.split(name).template
        if template and template != name:
            known = self._unit(template)
            local = self._local(template)
            if known is not None:
                return _file(known["options"])
            if local is not None:
                return local
        raise Failed(f"Error creating units: unable to find Unit({name}) in Registry or on filesystem")

    def _submit(self, name: str, file: UnitFile) -> None:
        options = [{"name": o.name, "section": o.section, "value": o.value} for o in file.options]
        self._put(name, {"name": name, "options": options})
        self._wait([{"name": name, "options": options}], "inactive")

    def _local(self, name: str) -> UnitFile | None:
        path = self.folder / name
        return unitfile.parse(path.read_text()) if path.exists() else None

    # --- how it waits

    def _set_states(self, units: Sequence[str], state: str) -> list[Unit]:
        triggered = []
        for argument in units:
            unit = self._unit(mangled(argument))
            if unit is None:
                raise Failed(f"unable to find unit {mangled(argument)}")
            if unit["desiredState"] != state:
                self._put(unit["name"], {"desiredState": state, "name": unit["name"]})
                triggered.append(unit)
        return triggered

    def _wait(self, units: Sequence[Unit], state: str, *, no_block: bool = False, attempts: int = 0) -> None:
        if no_block:
            return
        for unit in units:
            within = attempts * WINDOW_S or FOREVER_S
            if not _poll(partial(self._reached, unit["name"], state), within):
                raise Failed(f"timed out waiting for unit {unit['name']} to report state {state}")

    def _reached(self, name: str, state: str) -> bool:
        unit = self._unit(name)
        if unit is None or unit["desiredState" if _is_global(unit) else "currentState"] != state:
            return False
        where = ""
        if machine := unit.get("machineID", ""):
            known = {each["id"]: each for each in self._pages("machines", "machines")}
            where = f" on {machine[:8]}.../{known[machine]['primaryIP']}" if machine in known else ""
        self.said.append(f"Unit {name} {unit.get('currentState', '')}{where}")
        return True

    def _wait_for_active(self, units: Sequence[Unit]) -> None:
        for unit in units:
            if not _poll(partial(self._is_active, unit["name"]), WINDOW_S):
                raise Failed(f"Failed to find an active unit {unit['name']} within 2s")

    def _is_active(self, name: str) -> bool:
        return any(
            (state["systemdLoadState"], state["systemdActiveState"]) == ("loaded", "active")
            for state in self._pages("state", "states")
            if state["name"] == name
        )

    # --- how it asks

    def _find(self, units: Sequence[str]) -> list[Unit]:
        known = {unit["name"]: unit for unit in self._pages("units", "units")}
        return [known[mangled(unit)] for unit in units if mangled(unit) in known]

    def _unit(self, name: str) -> Unit | None:
        status, told = self.exchange("GET", f"units/{quote(name, safe='@')}")
        if status == 404:
            return None
        _verify(status, told)
        return dict(told)

    def _put(self, name: str, body: Unit) -> None:
        self._ask("PUT", f"units/{quote(name, safe='@')}", body)

    def _pages(self, resource: str, items: str) -> list[Any]:
        found: list[Any] = []
        token = ""
        while True:
            page = self._ask("GET", resource, token=token)
            found += page.get(items, [])
            if not (token := page.get("nextPageToken", "")):
                return found

    def _ask(self, method: str, path: str, body: object = None, *, token: str = "") -> Any:
        status, told = self.exchange(method, path, body, token=token)
        _verify(status, told)
        return told

    def exchange(self, method: str, path: str, body: object = None, *, token: str = "") -> tuple[int, Any]:
        """Send a request and return status and body, None when there is none."""
        self.sent.append(f"{method} {unquote(path)}")
        query = "?alt=json" + (f"&nextPageToken={quote(token)}" if token else "")
        headers = {"User-Agent": "google-api-go-client/0.5", "Accept-Encoding": "gzip"}
        raw = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            raw = json.dumps(body).encode() + b"\n"  # Go's encoder ends with a newline
        parts = urlsplit(self.endpoint)
        if parts.password:  # Go's client sends what the address holds
            secret = f"{parts.username}:{parts.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
        with contextlib.closing(self._connect()) as connection:
            connection.request(method, f"/fleet/v1/{path}{query}", body=raw, headers=headers)
            response = connection.getresponse()
            told = response.read()
            return response.status, json.loads(told) if told else None

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.endpoint)
        if parts.scheme != "unix":
            assert parts.hostname is not None
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        connection = http.client.HTTPConnection("domain-sock", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(parts.path)
        return connection

    def _begin(self) -> None:
        self.sent, self.said = [], []


def mangled(argument: str) -> str:
    """Return the unit that fleetctl takes an argument for."""
    name = argument.rpartition("/")[2]
    return name if name.rpartition(".")[2] in SUFFIXES and "." in name else f"{name}.service"


def _file(options: Sequence[dict[str, str]]) -> UnitFile:
    return UnitFile(tuple(unitfile.Option(o["section"], o["name"], o["value"], 0) for o in options))


def _is_global(unit: Unit) -> bool:
    return xfleet.read(unit["name"], _file(unit["options"])).is_global


def _verify(status: int, told: Any) -> None:
    if status >= 400:
        raise Failed(f"googleapi: Error {told['error']['code']}: {told['error']['message']}")


def _poll(holds: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE_S)
    return True
