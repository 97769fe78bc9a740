"""`unitctl events`: what happened to which unit or machine, and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from unitctl.arguments import MachineName, UnitName, output_option
from unitctl.client import Api, connect
from unitctl.context import Invocation
from unitctl.failures import INTERRUPTED
from unitctl.machines import find_machine
from unitctl.render import Column, Style, escape, items_json, json_line, moment, out, say, short, show
from unitctl.stream import Ended, Lost, UnitFeed
from unitfleet import names
from unitfleet.api import StreamMessage
from unitfleet.model import Happening


@click.command(short_help="Show what happened to units and machines, and why.")
@click.option("-n", "--limit", type=click.IntRange(0), default=20, show_default=True, help="How many, the latest.")
@click.option("--unit", type=UnitName(), metavar="UNIT", default="", help="Of this unit only.")
@click.option("--machine", type=MachineName(), metavar="M", default="", help="Of this machine only.")
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen, until ctrl-C.")
@output_option("table", "json", "jsonl")
@click.pass_obj
def command(invocation: Invocation, limit: int, unit: str, machine: str, follow: bool, output: str) -> int:
    """Show what happened to units and machines, and why; the latest last.

    \b
      unitctl events -n 50
      unitctl events -f --unit adserver@1
    """
    api = connect(invocation)
    unit = names.complete(unit) if unit else ""
    _, machines = api.machines()
    machine_id = find_machine(machines, machine).id if machine else ""
    rev, happenings = api.events(unit=unit, machine=machine_id, limit=limit or 1)
    happenings = happenings[-limit:] if limit else ()
    called = {view.id: view.name for view in machines}
    style = Style(sys.stdout, no_color=invocation.no_color)
    if output == "json" and not follow:
        out(items_json(rev, happenings))
        return 0
    if output != "table":
        for happening in happenings:
            out(json_line(happening))
    elif follow:
        for happening in happenings:
            out(_line(happening, called))
    else:
        show(
            "table",
            rev=rev,
            items=happenings,
            names=(),
            columns=_columns(called),
            rows=happenings,
            style=style,
        )
    if not follow:
        return 0
    try:
        _follow(api, rev, unit, machine_id, called, as_json=output != "table")
    except KeyboardInterrupt:
        return INTERRUPTED


def _follow(api: Api, rev: int, unit: str, machine: str, called: dict[str, str], *, as_json: bool) -> NoReturn:
    feed = UnitFeed(api.transport, (unit,) if unit else (), rev)
    feed.start()
    lost = False
    while True:
        sys.stdout.flush()
        match feed.next(None):
            case StreamMessage() as message:
                lost = False
                called.update({view.id: view.name for view in message.machines})
                for happening in message.events:
                    if (not unit or happening.unit == unit) and (not machine or happening.machine == machine):
                        out(json_line(happening) if as_json else _line(happening, called))
            case Lost(error=error):
                if not lost:
                    say(f"{error.message}; trying again")
                lost = True
            case Ended(error=error):
                raise error


def _columns(called: Mapping[str, str]) -> list[Column[Happening]]:
    return [
        Column("TIME", lambda row: moment(row.at)),
        Column("KIND", lambda row: row.kind, is_state=True),
        Column("UNIT", lambda row: row.unit),
        Column("MACHINE", lambda row: _machine(row, called)),
        Column("MESSAGE", lambda row: row.message, optional=True),
    ]


def _line(happening: Happening, called: Mapping[str, str]) -> str:
    """An event as one line of an endless list, where columns can't be measured."""
    about = " ".join(part for part in (happening.unit, _machine(happening, called)) if part)
    words = f"{moment(happening.at)}  {happening.kind:<10}  {about}"
    return escape(f"{words}  {happening.message}" if happening.message else words)


def _machine(happening: Happening, called: Mapping[str, str]) -> str:
    return called.get(happening.machine, short(happening.machine))
