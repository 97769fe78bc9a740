"""A machine's power switch: everything that runs for it ends at once, without a last word.

What belongs to a machine: its agent; processes that bear a token of one of its units (their supervisors do, and
each process of the unit from its fork); everything below those; the warden of its strict units; its containers.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from unitctl.dev.containers import Engine
from unitctl.dev.processes import Process, await_end, everyone, send, variables
from unitctl.failures import Failure

ENDING_S = 10.0


@dataclass(frozen=True, slots=True)
class Killed:
    """What went down with a machine."""

    processes: int
    containers: int
    units: tuple[str, ...]  # whose processes ran


class _Order(msgspec.Struct, frozen=True):
    unit: str
    token: str


class _Groups(msgspec.Struct, frozen=True):
    groups: dict[str, str]


class _Machine(msgspec.Struct, frozen=True):
    id: str


def power_off(name: str, folder: Path, agent: Process | None, engine: Engine) -> Killed:
    """Freeze all of the machine, look again for what was just being born, then kill it. Raises `Failure`.

    `folder` is the agent's state directory. A frozen agent can't restart what we kill.
    """
    frozen: dict[tuple[int, int], Process] = {}
    units: set[str] = set()
    deadline = time.monotonic() + ENDING_S
    while time.monotonic() < deadline:
        found, seen = _belonging(folder, agent)
        units |= seen
        new = {(process.pid, process.start): process for process in found} | frozen
        if len(new) == len(frozen):
            break
        for key in new.keys() - frozen.keys():
            _send(name, new[key], signal.SIGSTOP)
        frozen = new
    machine = machine_id(folder)
    containers = engine.kill(machine) if machine else 0
    for process in frozen.values():
        _send(name, process, signal.SIGKILL)
    left = await_end(frozen.values(), ENDING_S)
    if left:
        raise Failure(f"cannot end all of {name}: still there: {', '.join(str(process.pid) for process in left)}")
    _remove_groups(folder)
    return Killed(len(frozen), containers, tuple(sorted(units)))


def machine_id(folder: Path) -> str:
    """Return the id that an agent made for itself, "" when it never ran."""
    try:
        return msgspec.json.decode((folder / "machine.json").read_bytes(), type=_Machine).id
    except (OSError, msgspec.MsgspecError):
        return ""


def _remove_groups(folder: Path) -> None:
    """Remove the control groups of its units, as a host that boots has none; those still in use stay."""
    parents = set()
    for path in folder.glob("units/*/cgroup.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            for group in set(msgspec.json.decode(path.read_bytes(), type=_Groups).groups.values()):
                parents.add(Path(group).parent)
                with contextlib.suppress(OSError):
                    Path(group).rmdir()
    for parent in parents:
        for directory in (parent / "supervisors", parent):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _belonging(folder: Path, agent: Process | None) -> tuple[list[Process], set[str]]:
    """Return the live processes of a machine, and the units whose they are."""
    tokens = {f"UNITFLEET_UNIT_TOKEN={order.token}".encode(): order.unit for order in _orders(folder)}
    warden = f"UNITFLEET_WARDEN={folder / 'strict' / machine_id(folder)}".encode()
    all_of_them = everyone()
    found: list[Process] = []
    units: set[str] = set()
    for process in all_of_them:
        known = variables(process)
        borne = tokens.keys() & known
        units |= {tokens[token] for token in borne}
        if (
            borne
            or warden in known
            or (agent is not None and (process.pid, process.start) == (agent.pid, agent.start))
        ):
            found.append(process)
    return _with_descendants(found, all_of_them), units


def _orders(folder: Path) -> Iterable[_Order]:
    for path in folder.glob("units/*/order.json"):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=_Order)
        except (OSError, msgspec.MsgspecError):
            continue  # being removed just now: nothing runs there


def _with_descendants(roots: list[Process], all_of_them: list[Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in all_of_them:
        children.setdefault(process.parent, []).append(process)
    found = {process.pid: process for process in roots}
    queue = list(roots)
    while queue:
        for child in children.get(queue.pop().pid, ()):
            if child.pid not in found:
                found[child.pid] = child
                queue.append(child)
    return list(found.values())


def _send(name: str, process: Process, number: signal.Signals) -> None:
    try:
        send(process, number)
    except PermissionError as error:
        raise Failure(
            f"cannot end process {process.pid} of {name}: it is another user's", hint="do this as root"
        ) from error
