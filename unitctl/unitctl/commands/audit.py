"""`unitctl audit`: who changed what, from the audit logs of all masters."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import UnitName, output_option
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import Column, Style, json_line, moment, out, show, warn
from unitctl.when import Moment
from unitfleet import names
from unitfleet.accessapi import AuditLine


@click.command(short_help="Show who changed what.")
@click.option("--since", type=Moment(), metavar="TIME", default=0.0, help="Not older: 2h, 14:05, 2026-01-31.")
@click.option("--caller", metavar="NAME", default="", help="Only what this token's holder asked for.")
@click.option("--unit", type=UnitName(), metavar="GLOB", default="", help="Only what may concern these units.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The newest.")
@output_option("table", "json", "jsonl")
@click.pass_obj
def command(invocation: Invocation, since: float, caller: str, unit: str, limit: int, output: str) -> None:
    """Show who changed what, and who tried to and was refused; the latest last.

    A master that can't be asked is named: what it was asked for is missing then.

    \b
      unitctl audit --since 2h --unit 'adserver@*'
    """
    pattern = unit if not unit or names.is_glob(unit) else names.complete(unit)
    trail = connect(invocation).audit(since=since, caller=caller, unit=pattern, limit=limit)
    if output == "json":
        import msgspec

        out(msgspec.json.format(msgspec.json.encode(trail), indent=2).decode())
    elif output == "jsonl":
        for line in trail.items:
            out(json_line(line))
    else:
        style = Style(sys.stdout, no_color=invocation.no_color)
        show("table", rev=trail.rev, items=trail.items, names=(), columns=_COLUMNS, rows=trail.items, style=style)
    for why in trail.unasked:
        warn(f"lines may be missing, a master could not be asked: {why}")


def result(line: AuditLine) -> str:
    """How it ended, in words: done; refused: not_found; 2 of 5 refused: conflict; outcome not known."""
    if not line.status:
        return "outcome not known"
    if line.status < 300 and line.refused:
        return f"{line.refused} of {line.count} refused: {line.code}"
    if line.status < 300:
        return "done"
    more = f", and {line.unheard} more like it" if line.unheard else ""
    return f"{'refused' if line.status < 500 else 'failed'}: {line.code or line.status}{more}"


_COLUMNS: list[Column[AuditLine]] = [
    Column("TIME", lambda line: moment(line.at)),
    Column("CALLER", lambda line: line.caller),
    Column("ROLE", lambda line: line.role),
    Column("FROM", lambda line: line.source),
    Column("MASTER", lambda line: line.master),
    Column("ACTION", lambda line: line.action),
    Column("RESULT", result),
]
