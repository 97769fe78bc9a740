"""`unitctl machines`: what an operator does to a machine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from unitctl.arguments import Duration, MachineName
from unitctl.client import Api, connect
from unitctl.commands.join_tokens import join_token, join_tokens
from unitctl.commands.machine_labels import label, show
from unitctl.context import Invocation
from unitctl.failures import Detached, TimedOut, raise_all
from unitctl.machines import find_machine
from unitctl.phrases import copy_state
from unitctl.render import escape, out, say, span
from unitctl.stream import PAUSE_S
from unitfleet.api import UnitView
from unitfleet.errors import UnitfleetError

_MACHINES = click.argument("machines", metavar="MACHINE...", nargs=-1, required=True, type=MachineName())


@click.group(short_help="Cordon, drain, label or remove machines; let new ones join.")
def command() -> None:
    """Let machines join; cordon, drain, label or remove them. MACHINE is a name, an id or a unique prefix."""


command.add_command(join_token)
command.add_command(join_tokens)
command.add_command(label)
command.add_command(show)


@command.command()
@_MACHINES
@click.pass_obj
def cordon(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Place no new units on machines; those they have stay."""
    _each(connect(invocation), machines, "cordon", "cordoned: it takes no new units")


@command.command()
@_MACHINES
@click.pass_obj
def uncordon(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Place units on machines again."""
    _each(connect(invocation), machines, "uncordon", "takes units again")


@command.command()
@_MACHINES
@click.option("--wait", is_flag=True, help="Wait until no unit is left there.")
@click.option(
    "--timeout",
    type=Duration(),
    metavar="TIME",
    default="10m",
    show_default=True,
    help="Stop waiting after this long.",
)
@click.pass_obj
def drain(invocation: Invocation, machines: tuple[str, ...], wait: bool, timeout: float) -> None:
    """Move the units of machines to others, and place none there.

    A unit that no other machine takes stays and runs on; --wait says which and why.

    \b
      unitctl machines drain --wait m2
    """
    api = connect(invocation)
    if not wait:
        _each(api, machines, "drain", "drains: its units move to other machines")
        return
    listed = api.machines()[1]
    found = {view.id: view.name for view in (find_machine(listed, asked) for asked in machines)}
    for machine in found:
        api.command_machine(machine, "drain")
    try:
        _until_empty(api, found, timeout)
    except KeyboardInterrupt:
        raise Detached("stopped waiting; the units go on moving", see="unitctl list-machines") from None


@command.command(short_help="Take back a drain; what has moved stays where it is.")
@_MACHINES
@click.pass_obj
def undrain(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Take back a drain: machines take units again; what has moved stays where it is."""
    _each(connect(invocation), machines, "undrain", "takes units again")


@command.command(short_help="Say that machines are gone for good: their units are placed anew.")
@_MACHINES
@click.pass_obj
def lost(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Say that machines are gone for good, when you know better: their units are placed anew at once.

    Never say it of a machine that may still run: a unit could run twice. Units with Singleton=strict wait all
    the same until the fence of the machine is over.
    """
    _each(connect(invocation), machines, "lost", "declared lost: its units are placed anew")


@command.command()
@_MACHINES
@click.pass_obj
def rm(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Forget lost machines and shut their certificates out; one that is not lost is refused."""
    _each(connect(invocation), machines, "rm", "removed")


@command.command(short_help="Shut machines out: masters do not take their certificates any more.")
@_MACHINES
@click.pass_obj
def deny(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Shut machines out at once, as when a host was stolen: masters take nothing of them and ask them nothing.

    Their units stay placed there: drain first what can still be moved, or declare them lost when they are off.
    """
    _each(connect(invocation), machines, "deny", "shut out: masters do not take its certificate any more")


@command.command(short_help="Let machines that were shut out in again.")
@_MACHINES
@click.pass_obj
def allow(invocation: Invocation, machines: tuple[str, ...]) -> None:
    """Take back a deny: masters take the machines' certificates again."""
    _each(connect(invocation), machines, "allow", "let in again")


def _each(api: Api, machines: Sequence[str], verb: str, done: str) -> None:
    """Do one thing to each machine; one that is refused does not stop the others."""
    errors: list[UnitfleetError] = []
    for machine in dict.fromkeys(machines):
        try:
            api.command_machine(machine, verb)
            out(escape(f"{machine}  {done}"))
        except UnitfleetError as error:
            errors.append(error)
    raise_all(errors)


def _until_empty(api: Api, machines: dict[str, str], timeout: float) -> None:
    """Wait until no copy is left on the machines; raises TimedOut with those that are."""
    deadline = time.monotonic() + timeout
    empty: set[str] = set()
    counts: dict[str, int] = {}
    while True:
        units = api.units().items
        for machine, name in machines.items():
            left = _left(units, machine)
            if not left and machine not in empty:
                empty.add(machine)
                out(escape(f"{name}  drained"))
            elif left and counts.get(machine) != len(left):
                say(f"{name}: {len(left)} {'unit' if len(left) == 1 else 'units'} left")
            counts[machine] = len(left)
        if len(empty) == len(machines):
            return
        if time.monotonic() >= deadline:
            stuck = [line for machine in machines for line in _left(units, machine)]
            names = " ".join(name for machine, name in machines.items() if machine not in empty)
            raise TimedOut(
                f"cannot empty {names} within {span(timeout)}: {len(stuck)} left",
                details=stuck,
                hint="they run on until another machine takes them; unitctl explain UNIT says what is in the way",
            )
        time.sleep(PAUSE_S)


def _left(units: Sequence[UnitView], machine: str) -> list[str]:
    """The copies on a machine, each with where it is."""
    return [
        f"{view.name}: {copy_state(view, copy)}{f', {view.why}' if view.why else ''}"
        for view in units
        for copy in view.copies
        if copy.machine == machine and copy.phase != "gone"
    ]
