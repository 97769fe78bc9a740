"""`unitctl machines label` and `show`: what a machine is said to be, and all that is known of it."""

from __future__ import annotations

import sys
from typing import Any

import click

from unitctl.amounts import small
from unitctl.arguments import MachineName, output_option
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.failures import Failure
from unitctl.machines import find_machine
from unitctl.phrases import copy_state
from unitctl.render import Style, age, escape, json_line, out
from unitfleet.api import Foreseen, MachineView, Move, UnitView

MOST_MOVES = 40
"""Told one by one."""


class Label(click.ParamType[tuple[str, str]]):
    """`key=value`, or `key-` to take a key away."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Take a label apart."""
        key, equals, text = str(value).partition("=")
        if equals and key and text and "," not in text:
            return key, text
        if not equals and key.endswith("-") and len(key) > 1:
            return key[:-1], ""
        self.fail(f"{value!r} is no label: write key=value, or key- to take one away", param, ctx)


@click.command(short_help="Set metadata of a machine, and show first what would move.")
@click.argument("machine", metavar="MACHINE", type=MachineName())
@click.argument("labels", metavar="LABEL...", nargs=-1, required=True, type=Label())
@click.option("-n", "--dry-run", is_flag=True, help="Show what would move, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask where units would move.")
@click.pass_obj
def label(
    invocation: Invocation, machine: str, labels: tuple[tuple[str, str], ...], dry_run: bool, yes: bool
) -> None:
    """Set metadata of a machine: KEY=VALUE sets one, KEY- takes it away. It holds over what its agent says.

    Units that do not suit the machine any more move, and global units come and go: they are shown and asked about.

    \b
      unitctl machines label m2 zone=b rack-
      unitctl machines label m2 zone=b --dry-run
    """
    api = connect(invocation)
    wanted = dict(labels)
    foreseen = api.foresee_labels(machine, wanted)
    if dry_run or (foreseen.moves and not yes):
        _tell(foreseen)
    if dry_run:
        return
    if foreseen.moves and not yes:
        if not sys.stdin.isatty():
            raise Failure(
                f"cannot label {foreseen.machine_name}: {_units(len(foreseen.moves))} would be concerned",
                hint="give -y to do it all the same",
            )
        click.confirm(f"label {foreseen.machine_name}?", abort=True, err=True)
    api.label_machine(machine, wanted)
    out(escape(f"{foreseen.machine_name}  {_metadata(foreseen.metadata) or 'no metadata'}"))


def _tell(foreseen: Foreseen) -> None:
    if not foreseen.moves:
        out("no unit would move")
    for move in foreseen.moves[:MOST_MOVES]:
        out(escape(f"{move.unit}  {_course(move)}: {move.why}"))
    if len(foreseen.moves) > MOST_MOVES:
        out(f"… and {_units(len(foreseen.moves) - MOST_MOVES)} more")


def _course(move: Move) -> str:
    if move.source == move.target:
        return f"stays on {move.source}" if move.source else "stays pending"
    if not move.target:
        return f"leaves {move.source}"
    return f"{move.source or 'not placed'} → {move.target}"


def _units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"


def _metadata(metadata: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(metadata.items()))


@click.command(short_help="Show all that is known of a machine, and the units there.")
@click.argument("machine", metavar="MACHINE", type=MachineName())
@output_option("table", "json", "jsonl")
@click.pass_obj
def show(invocation: Invocation, machine: str, output: str) -> None:
    """Show all that is known of a machine, and the units there.

    \b
      unitctl machines show m2
    """
    api = connect(invocation)
    view = find_machine(api.machines()[1], machine)
    if output != "table":
        out(json_line(view))
        return
    style = Style(sys.stdout, no_color=invocation.no_color)
    out(f"{style.paint(escape(view.name), 'bold')}: {escape(_status(view))}")
    for word, text in _facts(view):
        out(f"  {word + ':':<10}{escape(text)}")
    there = [line for unit in api.units().items for line in _copies(unit, view.id)]
    out(f"  {'units:':<10}{len(there) or 'none'}")
    for line in there:
        out(f"    {escape(line)}")


def _status(view: MachineView) -> str:
    orders = [word for word, said in (("cordoned", view.cordoned), ("drained", view.drained)) if said]
    why = view.closed or view.reason
    return ", ".join([view.status, *orders]) + (f" ({why})" if why else "")


def _facts(view: MachineView) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(view.versions.items()))
    facts = [
        ("id", view.id),
        ("address", view.address),
        ("since", age(view.since)),
        ("metadata", _metadata(view.metadata) or "none"),
        ("drivers", ", ".join(view.drivers) or "none"),
        ("versions", versions),
        ("cpu", f"{view.reserved.cpu:g} of {view.capacity.cpu:g} cores requested, {view.used.cpu:.2f} used"),
    ]
    for word in ("memory", "disk"):
        whole, reserved, used = (getattr(each, word) for each in (view.capacity, view.reserved, view.used))
        facts.append((word, f"{small(reserved)} of {small(whole)} requested, {small(used)} used"))
    return [fact for fact in facts if fact[1]]


def _copies(unit: UnitView, machine: str) -> list[str]:
    return [
        f"{unit.name}  {copy_state(unit, copy)}"
        for copy in unit.copies
        if copy.machine == machine and copy.phase != "gone"
    ]
