"""`unitctl list-unit-files`: what is registered, templates included."""

from __future__ import annotations

import sys

import click

from unitctl import fleetctl
from unitctl.arguments import list_options, matching, some_units_argument
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.phrases import place
from unitctl.render import Column, Style, age, short, show
from unitfleet.api import UnitView


@click.command(short_help="List registered unit files: hash, target, state; templates too.")
@some_units_argument
@list_options
@click.pass_obj
def command(
    invocation: Invocation, units: tuple[str, ...], output: str, fields: str, no_legend: bool, full: bool
) -> None:
    """List registered unit files: the hash of the text, what is wanted and what is; templates too.

    \b
      unitctl list-unit-files
      unitctl list-unit-files --fields unit,hash
    """
    fleetctl.verify(output, full=full)
    api = connect(invocation)
    if output == fleetctl.FORMAT:
        fleetctl.list_unit_files(api, units, fleetctl.Looks(fields, full, not no_legend))
        return
    listed = api.units()
    views = matching(listed.items, units)
    show(
        output,
        rev=listed.rev,
        items=views,
        names=[view.name for view in views],
        columns=_COLUMNS,
        rows=views,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


def _kind(view: UnitView) -> str:
    if view.is_template:
        return "template"
    return "global" if view.is_global else "unit"


_COLUMNS: list[Column[UnitView]] = [
    Column("UNIT", lambda view: view.name),
    Column("HASH", lambda view: short(view.spec)),
    Column("TARGET", lambda view: "-" if view.is_template else view.target.value),
    Column("STATE", lambda view: "template" if view.is_template else view.phase, is_state=True),
    Column("MACHINE", place),
    Column("KIND", _kind, wide=True),
    Column("SINCE", lambda view: age(view.since), wide=True),
    Column("INCARNATION", lambda view: short(view.incarnation), wide=True),
    Column("DESCRIPTION", lambda view: view.description, wide=True),
]
