"""Starting a development cluster: what does not run yet, in order, until every machine is ready."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from unitctl import context
from unitctl.client import Api
from unitctl.dev import etcd
from unitctl.dev.containers import Engine
from unitctl.dev.layout import ADDRESS, Layout, Record, docker_socket
from unitctl.dev.members import (
    DAEMONS,
    MACHINES,
    MASTERS,
    PORTS,
    choose_ports,
    command,
    endpoints,
    environment,
    metadata,
)
from unitctl.dev.power import machine_id
from unitctl.dev.processes import running, spawn
from unitctl.dev.readiness import agent_is_ready, await_ready, etcd_is_ready, master_is_ready
from unitctl.failures import Failure
from unitctl.render import say
from unitctl.transport import Transport

CONTEXT = "dev"
READY_S = 30.0


def up(layout: Layout, env: Mapping[str, str]) -> tuple[str, ...]:
    """Start every daemon that does not run and wait until all are ready; return those that were started.

    Raises `Failure` when one can't be started; what runs then goes on.
    """
    layout.make()
    with layout.alone():
        record = layout.read() or Record(ports=PORTS, docker_socket=docker_socket(env))
        missing = [name for name in DAEMONS if not running(record.processes.get(name))]
        if len(missing) == len(DAEMONS):
            record = msgspec.structs.replace(record, ports=choose_ports(record.ports), killed={})
        layout.write(record)
        for path in (layout.token_file, layout.key_file):
            _make_secret(path)
        if "etcd" in missing:
            words = etcd.command(etcd.find(layout, env), layout, record.ports)
            record = _start(layout, record, "etcd", words, etcd.environment(env))
            _await(layout, record, "etcd")
        rest = [name for name in missing if name != "etcd"]
        for name in rest:
            record = _start(layout, record, name, command(layout, record, name), environment(env))
        for name in rest:
            _await(layout, record, name)
        _await_machines(layout, record)
        current = context.current(env) in ("", CONTEXT)
        context.save(CONTEXT, endpoints(record), str(layout.token_file), env, current=current)
        return tuple(missing)


def _start(layout: Layout, record: Record, name: str, words: Sequence[str], env: Mapping[str, str]) -> Record:
    """Start a daemon and write it down before anything else happens."""
    try:
        identity = spawn(words, layout.root, layout.log(name), env)
    except OSError as error:
        raise Failure(f"cannot start {name}: {words[0]}: {error.strerror or error}") from error
    killed = {machine: at for machine, at in record.killed.items() if machine != name}
    record = msgspec.structs.replace(record, processes={**record.processes, name: identity}, killed=killed)
    layout.write(record)
    return record


def _await(layout: Layout, record: Record, name: str) -> None:
    look = etcd_is_ready if name == "etcd" else master_is_ready if name in MASTERS else agent_is_ready
    port = record.ports[name]
    await_ready(layout, name, record.processes[name], lambda: look(port), READY_S)
    say(f"{name} is ready on {ADDRESS}:{port}  {metadata(name)}".rstrip())


def _await_machines(layout: Layout, record: Record) -> None:
    """Wait until the leader holds every machine of ours for ready, with all that they can run."""
    parsed = tuple(context.parse_endpoint(text) for text in endpoints(record))
    token = layout.token_file.read_text().strip()
    api = Api(Transport(context.Context(endpoints=parsed, source=str(layout.root), token=token)))

    wanted = {"process", "docker"} if Engine(record.docker_socket).answers() else {"process"}

    def missing(name: str) -> str:
        found = [machine for machine in api.machines()[1] if machine.status == "ready"]
        ready = {machine.id for machine in found if wanted <= set(machine.drivers)}
        held = machine_id(layout.state(name)) in ready
        return "" if held else f"the leader does not hold it for ready with {' and '.join(sorted(wanted))}"

    for name in MACHINES:
        await_ready(layout, name, record.processes[name], partial(missing, name), READY_S)


def _make_secret(path: Path) -> None:
    """Make a secret that its owner alone can read, once: masters and agents start at the same time."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
