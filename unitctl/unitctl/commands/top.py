"""`unitctl top`: what machines and units use, live, beside what is reserved and what there is."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click

from unitctl.amounts import SHARES, core_shares, cores, known_rate, rate, shares, small
from unitctl.arguments import output_option
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.failures import OK
from unitctl.live import Copy, Frame, Machine, Part, part, present
from unitctl.render import Column, Style
from unitfleet.model import Capacity

SORTS = ("cpu", "memory", "egress", "ingress", "unit")


@click.command(short_help="Show what machines and units use, live.")
@click.option(
    "--sort", type=click.Choice(SORTS), default="cpu", show_default=True, help="Units that use most first."
)
@click.option("--once", is_flag=True, help="Show it once and end; so it is off a terminal.")
@output_option("table", "json", "jsonl")
@click.pass_obj
def command(invocation: Invocation, sort: str, once: bool, output: str) -> int:
    """Show what machines and units use, live: CPU, memory, disk and network.

    Of machines it is used / reserved by their units / all there is; rates are bits a second. The machines push
    while you look, every few seconds; ctrl-C ends it.

    \b
      unitctl top --sort egress
      unitctl top --once -o json
    """
    api = connect(invocation)
    style = Style(sys.stdout, no_color=invocation.no_color)

    def draw(frame: Frame) -> Sequence[Part]:
        return part(MACHINES, frame.machines()), part(UNITS, ordered(frame, sort), clipped=True)

    code = present(api, draw, style, title, output=output, once=once)
    if output == "table" and code == OK and not invocation.quiet:
        sys.stderr.write(f"{SHARES}\n")
    return code


def title(frame: Frame) -> str:
    """The first line of the screen."""
    told = sum(1 for machine in frame.machines() if not machine.why)
    return (
        f"{told} of {len(frame.views)} machines, {len(frame.copies())} units, "
        f"used/reserved/capacity  {time.strftime('%H:%M:%S')}"
    )


def ordered(frame: Frame, sort: str) -> list[Copy]:
    """The copies, those that use most first."""
    copies = sorted(frame.copies(), key=lambda copy: (copy.figures.unit, copy.machine))
    if sort == "unit":
        return copies
    return sorted(copies, key=lambda copy: -float(getattr(copy.figures, sort)))


def _used(machine: Machine) -> Capacity:
    return machine.figures.used if machine.figures is not None and not machine.why else Capacity()


def _shares(machine: Machine, resource: str) -> str:
    figures, view = machine.figures, machine.view
    whole = figures.capacity if figures is not None and not machine.why else view.capacity
    used, reserved, capacity = (getattr(each, resource) for each in (_used(machine), view.reserved, whole))
    if resource == "cpu":
        return core_shares(used, reserved, capacity)
    return shares(used, reserved, capacity, rate if resource in ("egress", "ingress") else small)


def _pressure(machine: Machine) -> str:
    if machine.figures is None:
        return ""
    return " ".join(f"{word} {share:.0f}%" for word, share in machine.figures.pressure.items() if share >= 1)


def _of(used: str, limit: str) -> str:
    return f"{used} of {limit}" if limit else used


MACHINES: list[Column[Machine]] = [
    Column("MACHINE", lambda row: row.view.name),
    Column("STATUS", lambda row: row.view.status, is_state=True),
    Column("UNITS", lambda row: str(row.view.units)),
    Column("CPU", lambda row: _shares(row, "cpu")),
    Column("MEMORY", lambda row: _shares(row, "memory")),
    Column("DISK", lambda row: _shares(row, "disk")),
    Column("EGRESS", lambda row: _shares(row, "egress")),
    Column("INGRESS", lambda row: _shares(row, "ingress")),
    Column("LOAD", lambda row: f"{row.figures.load:.2f}" if row.figures and not row.why else ""),
    Column("PRESSURE", _pressure),
    Column("WHY", lambda row: row.why),
]

UNITS: list[Column[Copy]] = [
    Column("UNIT", lambda row: row.figures.unit),
    Column("MACHINE", lambda row: row.machine),
    Column(
        "CPU",
        lambda row: _of(cores(row.figures.cpu), cores(row.figures.cpu_limit) if row.figures.cpu_limit else ""),
    ),
    Column(
        "MEMORY",
        lambda row: _of(
            small(row.figures.memory), small(row.figures.memory_limit) if row.figures.memory_limit else ""
        ),
    ),
    Column("EGRESS", lambda row: known_rate(row.figures.egress)),
    Column("INGRESS", lambda row: known_rate(row.figures.ingress)),
    Column("PROCESSES", lambda row: str(row.figures.processes)),
    Column("RESTARTS", lambda row: str(row.figures.restarts)),
    Column("OOM", lambda row: str(row.figures.oom_kills) if row.figures.oom_kills else ""),
]
