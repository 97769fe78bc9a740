"""`unitctl load`: place units on machines without starting them."""

from __future__ import annotations

import click

from unitctl.arguments import output_option, units_argument, wait_options
from unitctl.change import Patience
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.launch import launch


@click.command(short_help="Place units on machines without starting them.")
@units_argument
@click.option("--replace", is_flag=True, help="Submit the file here in place of the text that is registered.")
@click.option("--wait", "for_place", is_flag=True, help="Where no machine fits, keep waiting until --timeout.")
@wait_options
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(
    invocation: Invocation,
    units: tuple[str, ...],
    replace: bool,
    for_place: bool,
    timeout: float,
    no_block: bool,
    output: str,
) -> None:
    """Place units on machines without starting them.

    Units that are not registered are submitted first, as by start. A unit that runs is stopped and stays on its
    machine, as by stop.

    \b
      unitctl load adserver@1
    """
    launch(invocation, units, Goal.LOAD, Patience(timeout, no_block, for_place), output, replace=replace)
