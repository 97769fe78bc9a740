"""`unitctl unload`: stop units and take them off their machines."""

from __future__ import annotations

import click

from unitctl.arguments import output_option, units_argument, wait_options
from unitctl.change import Patience
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.lower import lower


@click.command(short_help="Stop units and take them off their machines.")
@units_argument
@wait_options
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], timeout: float, no_block: bool, output: str) -> None:
    """Stop units and take them off their machines.

    They stay registered; start places them anew.

    \b
      unitctl unload adserver@1
    """
    lower(invocation, units, Goal.UNLOAD, Patience(timeout, no_block), output)
