"""A development cluster that stands: tell how it is, take a machine's power, end it all."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from unitctl import context
from unitctl.dev.containers import Engine
from unitctl.dev.layout import ADDRESS, Layout, Record
from unitctl.dev.members import DAEMONS, MACHINES, MASTERS, metadata
from unitctl.dev.power import Killed, machine_id, power_off
from unitctl.dev.processes import end, running
from unitctl.dev.start import CONTEXT
from unitctl.render import say
from unitfleet.errors import Refused

ENDING_S = 3.0
BRAKE_WINDOW_S = 60.0


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon as `status` shows it. state: up, off (its machine was switched off), dead, or new."""

    name: str
    state: str
    pid: int
    address: str
    metadata: str
    log: str


def status(layout: Layout) -> list[Daemon]:
    """Tell of each daemon whether it runs, and where. Raises `NotFound` without a cluster."""
    record = layout.record()
    found = []
    for name in DAEMONS:
        process = running(record.processes.get(name))
        address = f"{ADDRESS}:{record.ports[name]}"
        found.append(
            Daemon(
                name=name,
                state="up" if process else _why_not(record, name),
                pid=process.pid if process else 0,
                address=f"http://{address}" if name in MASTERS else address,
                metadata=metadata(name),
                log=str(layout.log(name)),
            )
        )
    return found


def _why_not(record: Record, name: str) -> str:
    if name in record.killed:
        return "off"
    return "dead" if name in record.processes else "new"


def kill(layout: Layout, machine: str) -> tuple[Killed, tuple[str, ...]]:
    """Take a machine's power; return what went down, and which others lost theirs within the brake's window.

    Raises `NotFound` without a cluster, `Refused` when nothing of the machine runs.
    """
    layout.record()
    with layout.alone():
        record = layout.record()
        agent = running(record.processes.get(machine))
        killed = power_off(machine, layout.state(machine), agent, Engine(record.docker_socket))
        if not killed.processes and not killed.containers:
            raise Refused(f"cannot kill {machine}: nothing of it runs", hint="unitctl dev up brings it back")
        now = time.time()
        layout.write(msgspec.structs.replace(record, killed={**record.killed, machine: now}))
        return killed, tuple(
            name for name, at in record.killed.items() if name != machine and now - at < BRAKE_WINDOW_S
        )


def down(layout: Layout, env: Mapping[str, str]) -> bool:
    """End every daemon, unit and container, remove the folder and the context; False when nothing was there."""
    if layout.read() is None:
        return False
    with layout.alone():
        record = layout.record()
        engine = Engine(record.docker_socket)
        for machine in MACHINES:
            folder = layout.state(machine)
            killed = power_off(machine, folder, running(record.processes.get(machine)), engine)
            if own_id := machine_id(folder):
                engine.remove(own_id)
            say(f"{machine} is off" + (f", with {', '.join(killed.units)}" if killed.units else ""))
        for names in (MASTERS, ("etcd",)):
            end([process for name in names if (process := running(record.processes.get(name)))], ENDING_S)
            say(f"{' and '.join(names)} ended")
        if context.token_file(CONTEXT, env) == str(layout.token_file):
            context.forget(CONTEXT, env)
            _remove_if_empty(context.config_file(env).parent)
        shutil.rmtree(layout.root)
    if layout.is_default:
        _remove_if_empty(layout.root.parent)
    say(f"removed {layout.root}")
    return True


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
