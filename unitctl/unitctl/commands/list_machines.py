"""`unitctl list-machines`: every machine that was ever seen."""

from __future__ import annotations

import sys

import click

from unitctl import fleetctl
from unitctl.amounts import SHARES, core_shares, rate, shares, small
from unitctl.arguments import list_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import Column, Style, age, short, show
from unitfleet.api import MachineView


@click.command(short_help="List machines: address, status, metadata, units.")
@list_options
@click.pass_obj
def command(invocation: Invocation, output: str, fields: str, no_legend: bool, full: bool) -> None:
    """List machines: address, status, metadata and how many units; those lost too, until `machines rm`.

    STATUS is ready, warming (new, and lacks images that it is to hold: no new containers), suspect (its sign of
    life is missing) or lost (its units were moved); a cordoned machine takes no new units, a drained one gives up
    those it has. One whose disk is full closes itself to new units.

    Wide, each resource is used / reserved by units / all there is, as last reported; `unitctl top` has it live.
    Rates are bits a second.

    \b
      unitctl list-machines -o wide
    """
    fleetctl.verify(output, full=full)
    api = connect(invocation)
    if output == fleetctl.FORMAT:
        fleetctl.list_machines(api, fleetctl.Looks(fields, full, not no_legend))
        return
    rev, machines = api.machines()
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
    if output == "wide" and rows and not (no_legend or invocation.quiet):
        sys.stderr.write(f"{SHARES}\n")


def _status(view: MachineView) -> str:
    words = [view.status]
    if view.drained:
        words.append("drained")
    elif view.cordoned:
        words.append("cordoned")
    if view.closed:
        words.append("closed")
    return ",".join(words)


def _metadata(view: MachineView) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(view.metadata.items()))


_COLUMNS: list[Column[MachineView]] = [
    Column("MACHINE", lambda view: view.name),
    Column("ADDRESS", lambda view: view.address),
    Column("STATUS", _status, is_state=True),
    Column("METADATA", _metadata),
    Column("UNITS", lambda view: str(view.units)),
    Column("SINCE", lambda view: age(view.since)),
    Column("WHY", lambda view: view.reason if view.status != "ready" else view.closed, optional=True),
    Column("ID", lambda view: short(view.id), wide=True),
    Column("DRIVERS", lambda view: ",".join(view.drivers), wide=True),
    Column("CPU", lambda view: core_shares(view.used.cpu, view.reserved.cpu, view.capacity.cpu), wide=True),
    Column(
        "MEMORY",
        lambda view: shares(view.used.memory, view.reserved.memory, view.capacity.memory, small),
        wide=True,
    ),
    Column("DISK", lambda view: shares(view.used.disk, view.reserved.disk, view.capacity.disk, small), wide=True),
    Column(
        "EGRESS",
        lambda view: shares(view.used.egress, view.reserved.egress, view.capacity.egress, rate),
        wide=True,
    ),
    Column(
        "INGRESS",
        lambda view: shares(view.used.ingress, view.reserved.ingress, view.capacity.ingress, rate),
        wide=True,
    ),
    Column("LOAD", lambda view: f"{view.load:.2f}", wide=True),
    Column(
        "VERSION",
        lambda view: ",".join(f"{key} {value}" for key, value in sorted(view.versions.items())),
        wide=True,
    ),
]
