"""`unitctl explain`: why a unit is where it is, or nowhere."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import output_option, registered, units_argument
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import Column, Style, escape, items_json, json_line, out, short, shown_columns, table
from unitfleet.api import Explanation, RuleVerdict


@click.command(short_help="Say why a unit is where it is, or nowhere: machine by machine.")
@units_argument
@output_option("table", "wide", "json", "jsonl")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], output: str) -> None:
    """Say why a unit is where it is, or nowhere: what each machine answers to it, and the nearest fix.

    The scheduler's own rules are asked, on the cluster as it is now.

    \b
      unitctl explain adserver@2
    """
    api = connect(invocation)
    explanations = [api.explain(name) for name in registered(api, units, templates=True)]
    if output == "json":
        out(items_json(max(each.rev for each in explanations), explanations))
        return
    style = Style(sys.stdout, no_color=invocation.no_color)
    for number, explanation in enumerate(explanations):
        if output == "jsonl":
            out(json_line(explanation))
            continue
        if number:
            out("")
        _write(explanation, style, wide=output == "wide")


def _write(explanation: Explanation, style: Style, *, wide: bool) -> None:
    out(f"{style.paint(escape(explanation.name), 'bold')}: {escape(explanation.summary)}")
    if explanation.machines:
        out("")
        columns: list[Column[RuleVerdict]] = [
            Column("MACHINE", lambda row: row.machine_name),
            Column("VERDICT", _verdict, is_state=True),
            Column("WHY", _why),
            Column("ID", lambda row: short(row.machine), wide=True),
        ]
        for line in table(
            shown_columns(columns, explanation.machines, "", wide=wide), explanation.machines, style
        ):
            out(line)
    if explanation.hint:
        out("")
        out(f"hint: {escape(explanation.hint)}")


def _verdict(row: RuleVerdict) -> str:
    if row.chosen:
        return "chosen"
    return "refused" if row.refused_by else "fits"


def _why(row: RuleVerdict) -> str:
    if row.refused_by:
        return f"{row.refused_by}: {row.why}" if row.why else row.refused_by
    return ", ".join(row.score) or row.why
