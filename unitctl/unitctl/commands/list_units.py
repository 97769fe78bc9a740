"""`unitctl list-units`: what is wanted beside what is there, one row a copy."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import click

from unitctl import fleetctl
from unitctl.arguments import list_options, matching, some_units_argument
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.phrases import addresses, copy_state
from unitctl.render import Column, Style, age, short, show
from unitfleet.api import CopyView, UnitView


@dataclass(frozen=True, slots=True)
class Row:
    """A unit and one of its copies, None when it has none."""

    view: UnitView
    copy: CopyView | None


@click.command(short_help="List units: where they are, their state, address and ports.")
@some_units_argument
@list_options
@click.pass_obj
def command(
    invocation: Invocation, units: tuple[str, ...], output: str, fields: str, no_legend: bool, full: bool
) -> None:
    """List units: where each copy is, its state, address and ports; what no machine takes, with the reason.

    UNIT is a name, range or glob; without one all are listed. Templates stand in list-unit-files.

    \b
      unitctl list-units 'adserver@*'
      unitctl list-units -o wide
      unitctl list-units --fields unit,address --no-legend
    """
    fleetctl.verify(output, full=full)
    api = connect(invocation)
    if output == fleetctl.FORMAT:
        fleetctl.list_units(api, units, fleetctl.Looks(fields, full, not no_legend))
        return
    listed = api.units()
    views = [view for view in matching(listed.items, units) if not view.is_template]
    show(
        output,
        rev=listed.rev,
        items=views,
        names=[view.name for view in views],
        columns=COLUMNS,
        rows=list(rows(views)),
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


def rows(views: Iterable[UnitView]) -> Iterable[Row]:
    """One row for each copy, and one for a unit without any: nothing is hidden."""
    for view in views:
        for copy in view.copies or (None,):
            yield Row(view, copy)


def _state(row: Row) -> str:
    return copy_state(row.view, row.copy) if row.copy else row.view.phase


def _why(row: Row) -> str:
    """Why it is not as wanted, on the row that shows it."""
    if row.copy is None:
        return row.view.pending.message if row.view.pending and row.view.pending.message else row.view.why
    if row.copy.machine_status != "ready":
        return f"{row.copy.machine_name} is {row.copy.machine_status}"
    if row.copy is row.view.copies[0] and not row.view.ok and row.view.why:
        return row.view.why
    return row.copy.message if row.copy.message and not row.view.ok else ""


COLUMNS: list[Column[Row]] = [
    Column("UNIT", lambda row: row.view.name),
    Column("MACHINE", lambda row: row.copy.machine_name if row.copy else ""),
    Column("ACTIVE", lambda row: row.copy.active or "inactive" if row.copy else "inactive", is_state=True),
    Column("SUB", lambda row: row.copy.sub or "dead" if row.copy else "dead"),
    Column("STATE", _state, is_state=True),
    Column("ADDRESS", lambda row: addresses(row.copy) if row.copy else ""),
    Column("SINCE", lambda row: age(row.copy.since if row.copy and row.copy.since else row.view.since)),
    Column("WHY", _why, optional=True),
    Column("TARGET", lambda row: row.view.target.value, wide=True),
    Column("HEALTH", lambda row: row.copy.health if row.copy else "", wide=True),
    Column("RESTARTS", lambda row: str(row.copy.restarts) if row.copy else "", wide=True),
    Column("PORTS", lambda row: addresses(row.copy, full=True) if row.copy else "", wide=True),
    Column("DRIVER", lambda row: row.copy.driver if row.copy else "", wide=True),
    Column("PID", lambda row: str(row.copy.pid) if row.copy and row.copy.pid else "", wide=True),
    Column("COPY", lambda row: short(row.copy.copy_id) if row.copy else "", wide=True),
    Column("HASH", lambda row: short(row.view.spec), wide=True),
    Column("EPOCH", lambda row: str(row.copy.epoch) if row.copy and row.copy.epoch else "", wide=True),
    Column("MACHINE ID", lambda row: short(row.copy.machine) if row.copy else "", wide=True),
    Column("LOAD", lambda row: row.copy.load if row.copy else "", wide=True),
    Column("DESCRIPTION", lambda row: row.view.description, wide=True),
]
