"""`unitctl cat`: print a unit's file as it was submitted."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import registered, units_argument
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.failures import Failure
from unitctl.render import escape


@click.command(short_help="Print unit files as they were submitted.")
@units_argument
@click.pass_obj
def command(invocation: Invocation, units: tuple[str, ...]) -> None:
    """Print unit files as they were submitted, comments included.

    Several units are told apart by a line "# name".
    """
    api = connect(invocation)
    found = registered(api, units, templates=True)
    for number, name in enumerate(found):
        file = api.unit(name)
        text = file.text
        if not text:
            raise Failure(
                f"cannot show the file of {name}: {file.unit.why or 'it is empty'}", see=f"unitctl status {name}"
            )
        if len(found) > 1:
            sys.stdout.write(f"{chr(10) if number else ''}# {name}\n")
        sys.stdout.write(escape(text, keep="\n\t") if sys.stdout.isatty() else text)
        if not text.endswith("\n"):
            sys.stdout.write("\n")
