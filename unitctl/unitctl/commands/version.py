"""`unitctl version`: which unitctl this is, and with --server which master answers."""

from __future__ import annotations

from importlib.metadata import version

import click

from unitctl.context import Invocation
from unitctl.render import escape, out


@click.command(short_help="Print the version, and with --server that of the API.")
@click.option("--server", is_flag=True, help="Ask the API for its version too.")
@click.pass_obj
def command(invocation: Invocation, server: bool) -> None:
    """Print the version of unitctl; with --server also what the master that answers says of itself."""
    out(f"unitctl {version('unitfleet')}")
    if server:
        from unitctl.client import connect

        for key, value in connect(invocation).version().items():
            out(escape(f"server {key}: {value}"))
