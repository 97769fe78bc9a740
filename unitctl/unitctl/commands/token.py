"""`unitctl token`: who may ask the API, and for what."""

from __future__ import annotations

import math
import sys
import time

import click

from unitctl.arguments import Duration, table_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.failures import raise_all
from unitctl.render import Column, Style, age, escape, moment, out, say, show, span
from unitfleet.accessapi import TokenView
from unitfleet.errors import UnitfleetError
from unitfleet.model import Role


@click.group(short_help="Give others a token of their own, with a role; take it back.")
def command() -> None:
    """Give others a token of their own, with a role, and take it back.

    A viewer reads, but neither unit files nor output; an operator reads those too, starts and stops; an admin
    does everything. TOKEN is a token's name or id.
    """


@command.command(short_help="Make a token and print it, this once.")
@click.argument("name", metavar="NAME")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it may do.")
@click.option("--ttl", type=Duration(), metavar="TIME", default="infinity", help="How long it lives: 30d, 12h.")
@click.pass_obj
def create(invocation: Invocation, name: str, role: str, ttl: float) -> None:
    """Make a token and print it: nobody can read it again, only its digest is kept.

    \b
      umask 077; unitctl token create ci --role operator --ttl 30d > ci.token
      UNITCTL_TOKEN_FILE=ci.token unitctl list-units
    """
    made = connect(invocation).create_token(name, Role(role), None if math.isinf(ttl) else ttl)
    out(escape(made.token))
    end = f"ends in {span(ttl)}" if made.view.expires_at else "never ends"
    if not invocation.quiet:
        say(
            f"token {name} ({made.view.id}) is a {role}'s and {end}; it is shown this once: keep it in a 0600 file"
        )


@command.command(short_help="List tokens; their secrets are nowhere.")
@table_options
@click.pass_obj
def ls(invocation: Invocation, output: str, fields: str, no_legend: bool) -> None:
    """List tokens: role, who made them, when they end."""
    rev, tokens = connect(invocation).tokens()
    show(
        output,
        rev=rev,
        items=tokens,
        names=[token.name for token in tokens],
        columns=_COLUMNS,
        rows=tokens,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


@command.command(short_help="Take tokens back, at once on every master.")
@click.argument("tokens", metavar="TOKEN...", nargs=-1, required=True)
@click.pass_obj
def rm(invocation: Invocation, tokens: tuple[str, ...]) -> None:
    """Take tokens back: they open nothing from now on, and streams that they opened end."""
    api = connect(invocation)
    errors: list[UnitfleetError] = []
    for token in dict.fromkeys(tokens):
        try:
            api.remove_token(token)
            out(escape(f"{token}  removed: it opens nothing any more"))
        except UnitfleetError as error:
            errors.append(error)
    raise_all(errors)


def _expires(token: TokenView) -> str:
    if not token.expires_at:
        return "never"
    return "expired" if token.expired else f"in {span(token.expires_at - time.time())}"


_COLUMNS: list[Column[TokenView]] = [
    Column("NAME", lambda token: token.name),
    Column("ROLE", lambda token: token.role.value),
    Column("ID", lambda token: token.id),
    Column("CREATED BY", lambda token: token.created_by),
    Column("CREATED", lambda token: age(token.created_at)),
    Column("EXPIRES", _expires, is_state=True),
    Column("AT", lambda token: moment(token.expires_at), wide=True),
]
