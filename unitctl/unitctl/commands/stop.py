"""`unitctl stop`: stop units, which stay placed."""

from __future__ import annotations

import click

from unitctl.arguments import output_option, units_argument, wait_options
from unitctl.change import Patience
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.lower import lower


@click.command(short_help="Stop units; they stay on their machines.")
@units_argument
@wait_options
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], timeout: float, no_block: bool, output: str) -> None:
    """Stop units; they stay on their machines.

    Waits until no copy runs any more. start runs them again on the same machine.

    \b
      unitctl stop adserver@1 adserver@2
      unitctl stop 'adserver@*'
    """
    lower(invocation, units, Goal.STOP, Patience(timeout, no_block), output)
