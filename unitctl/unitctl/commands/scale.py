"""`unitctl scale`: have so many instances of a template run."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from unitctl.arguments import UnitName, output_option, wait_options
from unitctl.change import Patience, Wish, carry_out
from unitctl.client import Units, connect, literal
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.render import out, say, warn
from unitctl.resolve import resolve
from unitfleet import names
from unitfleet.api import Change
from unitfleet.errors import InvalidName
from unitfleet.model import TargetState


@dataclass(frozen=True, slots=True)
class Scaling:
    """What brings a template to a number of instances."""

    start: tuple[str, ...]
    destroy: tuple[str, ...]
    keep: tuple[str, ...]  # they are launched already
    others: tuple[str, ...]  # instances that are not numbers, and so not ours to count


@click.command(short_help="Run a number of instances of a template: 1 to N.")
@click.argument("template", type=UnitName())
@click.argument("number", type=click.IntRange(0, 10_000))
@click.option("--dry-run", is_flag=True, help="Only say what would be started and destroyed.")
@click.option("--wait", "for_place", is_flag=True, help="Where no machine fits, keep waiting until --timeout.")
@wait_options
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(
    invocation: Invocation,
    template: str,
    number: int,
    dry_run: bool,
    for_place: bool,
    timeout: float,
    no_block: bool,
    output: str,
) -> None:
    """Run the instances 1 to NUMBER of TEMPLATE: start those that are missing, destroy those above.

    Instances that are not numbers (adserver@blue) are left alone.

    \b
      unitctl scale adserver@ 5
      unitctl scale --dry-run adserver@ 2
    """
    api = connect(invocation)
    name = template_name(template)
    head, _, tail = name.partition("@")
    plan = scaling(name, number, api.units(f"{literal(head)}@*{tail}"))
    verb = "would be " if dry_run else ""
    if plan.start:
        say(f"{verb}started: {' '.join(plan.start)}")
    if plan.destroy:
        say(f"{verb}destroyed: {' '.join(plan.destroy)}")
    if plan.others:
        say(f"left alone, not numbered: {' '.join(plan.others)}")
    if not plan.start and not plan.destroy:
        out(f"{name} has {number} instances already")
        return
    if dry_run:
        return
    wishes = [
        Wish(Change(name=each, target=TargetState.DESTROYED, if_exists=True), Goal.DESTROY)
        for each in plan.destroy
    ]
    for source in resolve(api, plan.start, os.environ, replace=False):
        if source.warning:
            warn(source.warning)
        change = Change(name=source.name, text=source.text, target=TargetState.LAUNCHED, file=source.path)
        wishes.append(Wish(change, Goal.START))
    carry_out(api, wishes, Patience(timeout, no_block, for_place), invocation, output)


def template_name(argument: str) -> str:
    """Make a template of what was typed: adserver, adserver@ and adserver@.service are the same."""
    name = names.complete(argument)
    if "@" not in name:
        body, _, suffix = name.rpartition(".")
        name = f"{body}@.{suffix}"
    parsed = names.parse(name)
    if not parsed.is_template:
        raise InvalidName(f"cannot scale {name}: it is an instance", hint=f"scale its template: {parsed.template}")
    return name


def scaling(template: str, number: int, listed: Units) -> Scaling:
    """Decide what to start and destroy so that instances 1 to `number` are launched and no higher one is left."""
    launched: set[int] = set()
    present: set[int] = set()
    others: list[str] = []
    for view in listed.items:
        parsed = names.split(view.name)
        if parsed.template != template or not parsed.is_instance or view.target is TargetState.DESTROYED:
            continue
        if not parsed.instance.isdecimal() or str(int(parsed.instance)) != parsed.instance:
            others.append(view.name)
            continue
        present.add(int(parsed.instance))
        if view.target is TargetState.LAUNCHED and view.phase != "failed":
            launched.add(int(parsed.instance))
    wanted = set(range(1, number + 1))
    return Scaling(
        start=tuple(_instance(template, each) for each in sorted(wanted - launched)),
        destroy=tuple(_instance(template, each) for each in sorted(present - wanted, reverse=True)),
        keep=tuple(_instance(template, each) for each in sorted(wanted & launched)),
        others=tuple(sorted(others)),
    )


def _instance(template: str, number: int) -> str:
    head, _, tail = template.partition("@")
    return f"{head}@{number}{tail}"
