"""`unitctl restart`: restart units in place."""

from __future__ import annotations

import click

from unitctl.arguments import output_option, units_argument, wait_options
from unitctl.change import Patience
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.lower import lower


@click.command(short_help="Restart units in place and wait until they run again.")
@units_argument
@wait_options
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], timeout: float, no_block: bool, output: str) -> None:
    """Restart units in place and wait until they run again.

    A unit that failed is started again. Units stay on their machines.

    \b
      unitctl restart adserver@1
    """
    lower(invocation, units, Goal.RESTART, Patience(timeout, no_block), output)
