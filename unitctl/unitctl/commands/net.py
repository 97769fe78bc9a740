"""`unitctl net`: bandwidth of units, wanted, in force and in use; and a change of it that restarts nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from unitctl.amounts import known_rate, rate
from unitctl.arguments import (
    Duration,
    output_option,
    registered,
    some_units_argument,
    table_options,
    units_argument,
)
from unitctl.client import Api, connect
from unitctl.context import Invocation
from unitctl.failures import Detached, TimedOut, raise_all
from unitctl.live import Copy, Frame, Part, part, present
from unitctl.render import Column, Style, escape, out, show, span
from unitctl.stream import PAUSE_S
from unitfleet import bandwidth
from unitfleet.api import NetLimit, NetView
from unitfleet.errors import UnitfleetError
from unitfleet.problems import BadValue
from unitfleet.rates import rate_text

SORTS = ("egress", "ingress", "unit")


class Amount(click.ParamType[int]):
    """A rate (20M, 1.5G) or, for `Burst`, a size; `none` takes it away."""

    name = "amount"

    def __init__(self, key: str) -> None:
        self._key = key

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read an amount; a wrong one is a usage error that shows the right form."""
        if isinstance(value, int):
            return value
        if str(value).lower() == "none":
            return 0
        try:
            return bandwidth.reader(self._key)(str(value))
        except BadValue as error:
            self.fail(str(error), param, ctx)


@click.group(short_help="Show and change the bandwidth of units.")
def command() -> None:
    """Show and change the bandwidth of units. Rates are bits a second: 500K, 20M, 1.5G."""


@command.command(short_help="Show what is wanted of units' bandwidth, and what is in force where.")
@some_units_argument
@table_options
@click.pass_obj
def limits(invocation: Invocation, units: tuple[str, ...], output: str, fields: str, no_legend: bool) -> None:
    """Show what is wanted of units' bandwidth, and what is in force on which machine.

    Without UNIT: those of whose bandwidth anything is said. EGRESS and INGRESS are guaranteed, and lend what they
    don't use; the limits are never passed. BY says whether it stands in the text or was set by `net limit`.

    \b
      unitctl net limits
      unitctl net limits -o wide 'adserver@*'
    """
    api = connect(invocation)
    rev, rows = api.net(registered(api, units) if units else None)
    show(
        output,
        rev=rev,
        items=rows,
        names=[row.unit for row in rows],
        columns=LIMITS,
        rows=rows,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


@command.command(short_help="Show what units send and get, live.")
@click.option("--sort", type=click.Choice(SORTS), default="egress", show_default=True, help="The busiest first.")
@click.option("--once", is_flag=True, help="Show it once and end; so it is off a terminal.")
@output_option("table", "json", "jsonl")
@click.pass_obj
def top(invocation: Invocation, sort: str, once: bool, output: str) -> int | None:
    """Show what units send and get, live, in bits a second, beside their limits; ctrl-C ends it.

    DROPPED counts packets that a limit held back for too long.
    """
    api = connect(invocation)
    style = Style(sys.stdout, no_color=invocation.no_color)

    def draw(frame: Frame) -> Sequence[Part]:
        copies = sorted(frame.copies(), key=lambda copy: (copy.figures.unit, copy.machine))
        if sort != "unit":
            copies.sort(key=lambda copy: -int(getattr(copy.figures, sort)))
        return (part(FLOWS, copies, clipped=True),)

    return present(api, draw, style, _title, output=output, once=once)


_EGRESS = click.option("--egress", type=Amount("Egress"), metavar="RATE", help="Guarantee what it sends.")
_INGRESS = click.option("--ingress", type=Amount("Ingress"), metavar="RATE", help="Guarantee what comes to it.")
_EGRESS_LIMIT = click.option("--egress-limit", type=Amount("Egress"), metavar="RATE", help="Bound what it sends.")
_INGRESS_LIMIT = click.option(
    "--ingress-limit", type=Amount("Ingress"), metavar="RATE", help="Bound what comes to it."
)


@command.command(short_help="Change the bandwidth of units at once, without a restart.")
@units_argument
@_EGRESS
@_INGRESS
@_EGRESS_LIMIT
@_INGRESS_LIMIT
@click.option("--burst", type=Amount("Burst"), metavar="SIZE", help="Bytes that may go at once: 32K.")
@click.option("--reset", is_flag=True, help="Bring back what the unit's text says.")
@click.option(
    "--timeout",
    type=Duration(),
    metavar="TIME",
    default="15s",
    show_default=True,
    help="Stop waiting until it is in force after this long.",
)
@click.option("--no-block", is_flag=True, help="Give the command and don't wait until it is in force.")
@click.pass_obj
def limit(
    invocation: Invocation,
    units: tuple[str, ...],
    egress: int | None,
    ingress: int | None,
    egress_limit: int | None,
    ingress_limit: int | None,
    burst: int | None,
    reset: bool,
    timeout: float,
    no_block: bool,
) -> None:
    """Change the bandwidth of units at once, without a restart, in place of what their texts say.

    What is not named stays as it is; `none` takes a rate away. It holds through restarts, moves and new texts,
    until --reset or destroy. A guarantee that the unit's machine has not left is refused.

    \b
      unitctl net limit adserver@1 --egress 20M --egress-limit 50M
      unitctl net limit 'adserver@<1..3>' --ingress-limit none
      unitctl net limit adserver@1 --reset
    """
    wish = NetLimit(
        egress=egress,
        ingress=ingress,
        egress_limit=egress_limit,
        ingress_limit=ingress_limit,
        burst=burst,
        reset=reset,
    )
    given = (egress, ingress, egress_limit, ingress_limit, burst)
    if reset and given != (None,) * 5:
        raise click.UsageError("--reset goes with no rate: it brings back what the unit's text says")
    if not reset and given == (None,) * 5:
        raise click.UsageError("no rate is given: --egress, --ingress, --egress-limit, --ingress-limit or --reset")
    api = connect(invocation)
    errors: list[UnitfleetError] = []
    taken: dict[str, int] = {}
    for name in registered(api, units):
        try:
            taken[name] = api.limit(name, wish).rev
        except UnitfleetError as error:
            errors.append(error)
    try:
        errors += _tell(api, taken, 0.0 if no_block else timeout)
    except KeyboardInterrupt:
        raise Detached("stopped waiting; the limits are taken", see="unitctl net limits") from None
    raise_all(errors)


def _tell(api: Api, taken: dict[str, int], timeout: float) -> list[UnitfleetError]:
    """Say of each unit what holds, once it is in force; return those where it was not in time."""
    deadline = time.monotonic() + timeout
    waiting = dict.fromkeys(taken, "")
    while waiting:
        _, rows = api.net(list(waiting), min_revision=max(taken.values()))
        running = _running(api, waiting)
        for name in list(waiting):
            mine = [row for row in rows if row.unit == name]
            why = next((why for row in mine if (why := _not_yet(row, (name, row.machine) in running))), "")
            if why and timeout:
                waiting[name] = why
                continue
            del waiting[name]
            if mine:
                places = [row.machine_name for row in mine if row.in_force is not None]
                where = f", in force on {', '.join(places)}" if places and not why else ""
                out(escape(f"{name}  {bandwidth.in_words(mine[0].wanted)}{where}"))
        if waiting and time.monotonic() >= deadline:
            break
        if waiting:
            time.sleep(PAUSE_S)
    return [
        TimedOut(
            f"cannot see the bandwidth of {name} in force within {span(timeout)}: {why}",
            hint=f"it is taken; unitctl net limits {name} shows how it comes along",
        )
        for name, why in waiting.items()
    ]


def _running(api: Api, units: Sequence[str] | dict[str, str]) -> set[tuple[str, str]]:
    """Where copies of these units run, by name and machine id."""
    listed = api.known(units)
    return {(view.name, copy.machine) for view in listed.items for copy in view.copies if copy.phase == "running"}


def _not_yet(row: NetView, runs: bool) -> str:
    """Return why what is wanted is not in force there, "" when it is or when nothing runs that it could hold."""
    if not row.machine or not runs:
        return ""
    if row.ordered != row.wanted:
        return f"{row.machine_name} has no order for it yet"
    held = row.in_force
    if held is None:
        return f"on {row.machine_name}: {row.why}" if row.wanted else ""
    stands = (held.egress, held.egress_limit, held.ingress, held.ingress_limit)
    wanted = row.wanted
    if stands != (wanted.egress, wanted.egress_limit, wanted.ingress, wanted.ingress_limit):
        return f"the agent of {row.machine_name} is at it"
    return "" if held.in_force else f"on {row.machine_name}: {held.trouble or 'not in force yet'}"


def _title(frame: Frame) -> str:
    copies = frame.copies()
    sent = sum(max(copy.figures.egress, 0) for copy in copies)
    received = sum(max(copy.figures.ingress, 0) for copy in copies)
    return f"{len(copies)} units, egress {rate(sent)}, ingress {rate(received)}  {time.strftime('%H:%M:%S')}"


def _said(amount: Callable[[NetView], int]) -> Callable[[NetView], str]:
    return lambda row: rate_text(amount(row)) if amount(row) else ""


def _in_force(row: NetView) -> str:
    if not row.machine:
        return "not placed"
    if row.in_force is None:
        return f"unknown: {row.why}"
    if row.ordered != row.wanted:
        return "no: not ordered yet"
    return "yes" if row.in_force.in_force else f"no: {row.in_force.trouble or 'its agent is at it'}"


def _limited(used: int, most: int) -> str:
    text = known_rate(used)
    return f"{text} of {rate(most)}" if text and most else text


def _dropped(copy: Copy) -> str:
    dropped = max(copy.figures.sent_dropped, 0) + max(copy.figures.received_dropped, 0)
    return str(dropped) if dropped else ""


LIMITS: list[Column[NetView]] = [
    Column("UNIT", lambda row: row.unit),
    Column("MACHINE", lambda row: row.machine_name),
    Column("EGRESS", _said(lambda row: row.wanted.egress)),
    Column("EGRESS LIMIT", _said(lambda row: row.wanted.egress_limit)),
    Column("INGRESS", _said(lambda row: row.wanted.ingress)),
    Column("INGRESS LIMIT", _said(lambda row: row.wanted.ingress_limit)),
    Column("BY", lambda row: "net limit" if row.set_live else "text" if row.wanted else ""),
    Column("IN FORCE", _in_force),
    Column("BURST", lambda row: str(row.wanted.burst) if row.wanted.burst else "", wide=True),
    Column("HOW", lambda row: row.in_force.how if row.in_force else "", wide=True),
    Column("INTERFACE", lambda row: row.in_force.interface if row.in_force else "", wide=True),
]

FLOWS: list[Column[Copy]] = [
    Column("UNIT", lambda row: row.figures.unit),
    Column("MACHINE", lambda row: row.machine),
    Column("EGRESS", lambda row: _limited(row.figures.egress, row.figures.egress_limit)),
    Column("INGRESS", lambda row: _limited(row.figures.ingress, row.figures.ingress_limit)),
    Column("DROPPED", _dropped),
]
