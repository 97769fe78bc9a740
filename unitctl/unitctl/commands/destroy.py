"""`unitctl destroy`: stop units and forget them."""

from __future__ import annotations

import click

from unitctl.arguments import output_option, units_argument, wait_options
from unitctl.change import Patience
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.lower import lower


@click.command(short_help="Stop units and forget them, with their files.")
@units_argument
@wait_options
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], timeout: float, no_block: bool, output: str) -> None:
    """Stop units and forget them, with their files.

    A glob means the units that are registered, without templates: name a template in full.

    \b
      unitctl destroy adserver@1
      unitctl destroy 'adserver@*'
      unitctl destroy adserver@.service
    """
    lower(invocation, units, Goal.DESTROY, Patience(timeout, no_block), output)
