"""`unitctl submit`: register units without placing them."""

from __future__ import annotations

import os

import click

from unitctl.arguments import output_option, units_argument
from unitctl.change import Patience, Wish, carry_out
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import out, warn
from unitctl.resolve import resolve
from unitfleet.api import Change


@click.command(short_help="Register unit files, without placing or starting them.")
@units_argument
@click.option("--replace", is_flag=True, help="Replace the text of a unit that is registered already.")
@output_option("table", "json", "jsonl", "name")
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...], replace: bool, output: str) -> None:
    """Register unit files, without placing or starting them.

    UNIT is a path to a unit file (x.service, or x.container with Quadlet's keys), or a name whose file is in the
    current directory or in those of UNITCTL_UNITS. A template (adserver@.service) is submitted so that its
    instances can be started by name.

    \b
      unitctl submit units/adserver@.service
      unitctl submit --replace ./webserver.container
    """
    api = connect(invocation)
    sources = resolve(api, units, os.environ, replace=replace)
    for source in sources:
        if source.warning:
            warn(source.warning)
        elif source.text is None and output == "table":
            out(f"{source.name}  is registered already")
    wishes = [
        Wish(Change(name=source.name, text=source.text, replace=replace, file=source.path), None)
        for source in sources
        if source.text is not None
    ]
    if wishes:
        carry_out(api, wishes, Patience(timeout=0.0), invocation, output)
