"""`unitctl status`: everything about a unit on one screen, as systemctl shows it."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import output_option, registered, units_argument
from unitctl.client import Api, connect
from unitctl.context import Invocation
from unitctl.failures import NOT_PLACED, OK, raise_all
from unitctl.phrases import addresses, considered, copy_state, refusals
from unitctl.render import Style, age, escape, items_json, json_line, moment, out, short
from unitfleet.api import CopyView, LogLine, UnitView
from unitfleet.errors import NotFound, UnitfleetError
from unitfleet.model import Happening, TargetState

_EVENTS = 5
_MARKS = {"running": "●", "finished": "●", "failed": "✗", "inactive": "○", "loaded": "○"}


@click.command(short_help="Show all about units: state, place, address, events, last output.")
@units_argument
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=5, show_default=True, help="How many lines of output."
)
@output_option("table", "json", "jsonl")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], lines: int, output: str) -> int:
    """Show all about units: state, place, address, what happened and the last output.

    Exit code 0 when all run as wanted, 3 when one does not, 4 when one is unknown.

    \b
      unitctl status adserver@1
    """
    api = connect(invocation)
    style = Style(sys.stdout, no_color=invocation.no_color)
    views: list[UnitView] = []
    missing: list[UnitfleetError] = []
    for name in registered(api, units, templates=True):
        try:
            view = api.view(name)
        except NotFound as error:
            missing.append(error)
            continue
        if output == "jsonl":
            out(json_line(view))
        elif output == "table":
            if views:
                out("")
            for line in block(view, *_more(api, view, lines), style):
                out(line)
        views.append(view)
    if output == "json":
        out(items_json(max((view.rev for view in views), default=0), views))
    raise_all(missing)
    return OK if all(runs_as_wanted(view) for view in views) else NOT_PLACED


def runs_as_wanted(view: UnitView) -> bool:
    """Whether a unit is to run and does, or has done so well."""
    return view.ok and view.target is TargetState.LAUNCHED


def _more(api: Api, view: UnitView, lines: int) -> tuple[list[Happening], list[LogLine], str]:
    """Events and output; what can't be had now is said in their place, the state still stands."""
    happenings: list[Happening] = []
    try:
        happenings = list(api.events(unit=view.name, limit=_EVENTS)[1])[-_EVENTS:]
        if not lines or not view.copies:
            return happenings, [], ""
        return happenings, api.logs(view.name, lines=lines), ""
    except UnitfleetError as error:
        return happenings, [], error.message


def block(
    view: UnitView, happenings: list[Happening], lines: list[LogLine], trouble: str, style: Style
) -> list[str]:
    """The status of a unit as lines."""
    description = f" - {view.description}" if view.description else ""
    colour = (
        "green" if view.ok and view.phase in ("running", "finished") else "red" if view.phase == "failed" else ""
    )
    mark = style.paint(_MARKS.get(view.phase, "◌"), colour)
    shown = [f"{mark} {style.paint(escape(view.name), 'bold')}{escape(description)}"]
    state = "template: start an instance of it" if view.is_template else _since(view.phase, view.since, style)
    kind = ", global" if view.is_global else ""
    wanted = "" if view.is_template else f", target {view.target.value}{kind}"
    fields = [("State", state), ("File", f"{short(view.spec)}{wanted}")]
    if view.why:
        fields.append(("Why", escape(view.why)))
    if view.pending is not None:
        fields.append(("Pending", escape(considered(view.pending))))
        fields += [("", escape(line)) for line in refusals(view.pending)]
        if view.pending.hint:
            fields.append(("Hint", escape(view.pending.hint)))
    for copy in view.copies:
        fields += _copy(view, copy, style)
    shown += [f"{f'{title}:' if title else '':>10} {text}" for title, text in fields]
    if happenings:
        shown.append(f"{'Events:':>10}")
        for each in happenings:
            words = f"{moment(each.at)}  {each.kind}  {each.message}".rstrip()
            shown.append(f"{'':>10} {escape(words)}")
    if lines:
        shown.append(f"{'Output:':>10}")
        shown += [f"{'':>10} {escape(line.text)}" for line in lines]
    if trouble:
        what = "output" if happenings else "events or output"
        shown.append(f"{'Note:':>10} no {what}: {escape(trouble)}")
    return shown


def _copy(view: UnitView, copy: CopyView, style: Style) -> list[tuple[str, str]]:
    """What is known of one copy."""
    machine = f"{copy.machine_name} ({short(copy.machine)})"
    if copy.machine_status != "ready":
        machine += f", {copy.machine_status}"
    state = copy_state(view, copy)
    systemd = f", {copy.active} ({copy.sub})" if copy.active else ""
    fields = [("Machine", f"{escape(machine)}: {style.state(escape(state))}{escape(systemd)}")]
    process = [copy.driver, f"pid {copy.pid}" if copy.pid else "", short(copy.copy_id), copy.health]
    if any(process):
        fields.append(("Copy", escape(", ".join(part for part in process if part))))
    if addresses(copy, full=True):
        fields.append(("Address", escape(addresses(copy, full=True))))
    if copy.restarts:
        fields.append(("Restarts", f"{copy.restarts}" + (f", the last by {copy.cause}" if copy.cause else "")))
    elif copy.cause:
        fields.append(("Ended by", str(copy.cause)))
    if copy.reason:
        fields.append(("Placed", escape(f"{copy.reason} (epoch {copy.epoch})")))
    if copy.progress >= 0 and copy.phase == "pulling":
        fields.append(("Pull", f"{copy.progress} %"))
    if copy.message and copy.message not in view.why:
        fields.append(("Message", escape(copy.message)))
    return fields


def _since(phase: str, since: float, style: Style) -> str:
    ago = f" since {moment(since)} ({age(since)} ago)" if since > 0 else ""
    return f"{style.state(escape(phase))}{ago}"
