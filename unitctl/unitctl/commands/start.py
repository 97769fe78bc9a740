"""`unitctl start`: have units run, and tell how it comes along."""

from __future__ import annotations

import click

from unitctl.arguments import output_option, units_argument, wait_options
from unitctl.change import Patience
from unitctl.context import Invocation
from unitctl.goal import Goal
from unitctl.launch import launch


@click.command(short_help="Start units and wait until they run.")
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
    """Start units and wait until they run.

    A unit that is not registered yet is submitted first: from its file (a path, the current directory, or those of
    UNITCTL_UNITS), or, for an instance such as adserver@1, from its template. A unit that failed is tried again.

    Where no machine fits, the command says why and ends with exit code 3; the unit's target stays `launched`, and
    it starts as soon as a machine fits. Ctrl-C stops the waiting, not the start.

    \b
      unitctl start adserver@1
      unitctl start 'adserver@<1..4>'      also adserver@1..4 and adserver@{1..4}
      unitctl start --timeout 5m ./webserver.container
    """
    launch(invocation, units, Goal.START, Patience(timeout, no_block, for_place), output, replace=replace)
