"""`unitctl list-machines`: every machine that was ever seen."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import table_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import Column, Style, age, short, show, size
from unitfleet.api import MachineView


@click.command(short_help="List machines: address, status, metadata, units.")
@table_options
@click.pass_obj
def command(invocation: Invocation, output: str, fields: str, no_legend: bool) -> None:
    """List machines: address, status, metadata and how many units; those lost too, until `machines rm`.

    STATUS is ready, suspect (its sign of life is missing) or lost (its units were moved); a cordoned machine
    takes no new units, a drained one gives up those it has.

    \b
      unitctl list-machines -o wide
    """
    rev, machines = connect(invocation).machines()
    rows = sorted(machines, key=lambda view: (view.name, view.id))
    show(
        output,
        rev=rev,
        items=rows,
        names=[view.name for view in rows],
        columns=_COLUMNS,
        rows=rows,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


def _status(view: MachineView) -> str:
    words = [view.status]
    if view.drained:
        words.append("drained")
    elif view.cordoned:
        words.append("cordoned")
    return ",".join(words)


def _metadata(view: MachineView) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(view.metadata.items()))


def _cores(count: float) -> str:
    return f"{count:.1f}".removesuffix(".0")


_COLUMNS: list[Column[MachineView]] = [
    Column("MACHINE", lambda view: view.name),
    Column("ADDRESS", lambda view: view.address),
    Column("STATUS", _status, is_state=True),
    Column("METADATA", _metadata),
    Column("UNITS", lambda view: str(view.units)),
    Column("SINCE", lambda view: age(view.since)),
    Column("WHY", lambda view: view.reason if view.status != "ready" else "", optional=True),
    Column("ID", lambda view: short(view.id), wide=True),
    Column("DRIVERS", lambda view: ",".join(view.drivers), wide=True),
    Column("CPU RESERVED", lambda view: f"{_cores(view.reserved.cpu)}/{_cores(view.capacity.cpu)}", wide=True),
    Column("CPU USED", lambda view: f"{view.used.cpu:.1f}", wide=True),
    Column("MEM RESERVED", lambda view: f"{size(view.reserved.memory)}/{size(view.capacity.memory)}", wide=True),
    Column("MEM USED", lambda view: size(view.used.memory), wide=True),
    Column("LOAD", lambda view: f"{view.load:.2f}", wide=True),
    Column(
        "VERSION",
        lambda view: ",".join(f"{key} {value}" for key, value in sorted(view.versions.items())),
        wide=True,
    ),
]
