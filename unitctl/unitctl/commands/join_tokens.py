"""`unitctl machines join-token` and `join-tokens`: the words by which hosts join."""

from __future__ import annotations

import math
import sys
from typing import Any

import click

from unitctl.arguments import Duration, table_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.render import Column, Style, escape, out, say, show, span
from unitfleet.joinapi import JoinTokenView, JoinTokenWish

MOST_TTL_S = 30 * 86400


class Metadata(click.ParamType[dict[str, str]]):
    """k=v,k=v."""

    name = "metadata"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Read pairs; a word without `=` is a usage error."""
        pairs = [word.partition("=") for word in str(value).split(",") if word.strip()]
        for key, equals, _ in pairs:
            if not equals or not key.strip():
                self.fail(f"{key!r} is not key=value", param, ctx)
        return {key.strip(): text.strip() for key, _, text in pairs}


@click.command("join-token", short_help="Make a token by which new hosts join.")
@click.option(
    "--ttl", type=Duration(), metavar="TIME", default="1h", show_default=True, help="How long it is good."
)
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="For how many hosts.")
@click.option("--metadata", type=Metadata(), metavar="K=V,…", default="", help="What machines that join are.")
@click.option(
    "--role", type=click.Choice(["agent", "master"]), default="agent", show_default=True, help="What joins by it."
)
@click.pass_obj
def join_token(invocation: Invocation, ttl: float, uses: int, metadata: dict[str, str], role: str) -> None:
    """Make a token and write it: a secret like a password, told this once.

    It carries where masters answer and the digest of the cluster's authority, so that a host knows them.

    \b
      unitctl machines join-token --uses 3 --metadata zone=a
      unit-agent --join TOKEN
    """
    if not 1 <= ttl <= MOST_TTL_S:
        raise click.UsageError(f"--ttl is from 1s to {span(MOST_TTL_S)}")
    made = connect(invocation).make_join_token(JoinTokenWish(ttl_s=ttl, uses=uses, role=role, metadata=metadata))
    out(made.token)
    if not invocation.quiet:
        whom = f"{uses} {role}{'s' if uses > 1 else ''}"
        say(f"token {made.id}: for {whom}, within {span(ttl)}: unit-{role} --join TOKEN")


@click.group("join-tokens", invoke_without_command=True, short_help="List join tokens, or remove them.")
@table_options
@click.pass_context
def join_tokens(ctx: click.Context, output: str, fields: str, no_legend: bool) -> None:
    """List the join tokens that are not over, without their secrets; rm makes one good for nobody."""
    if ctx.invoked_subcommand is not None:
        return
    invocation: Invocation = ctx.obj
    rev, tokens = connect(invocation).join_tokens()
    show(
        output,
        rev=rev,
        items=list(tokens),
        names=[view.id for view in tokens],
        columns=_COLUMNS,
        rows=list(tokens),
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


@join_tokens.command()
@click.argument("tokens", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def rm(invocation: Invocation, tokens: tuple[str, ...]) -> None:
    """Remove join tokens; who joined by them stays."""
    api = connect(invocation)
    for token in tokens:
        api.remove_join_token(token)
        out(escape(f"{token}  removed"))


def _left(view: JoinTokenView) -> str:
    import time

    left = view.expires_at - time.time()
    return span(math.floor(left)) if left > 0 else "over"


_COLUMNS: list[Column[JoinTokenView]] = [
    Column("ID", lambda view: view.id),
    Column("ROLE", lambda view: view.role),
    Column("USES LEFT", lambda view: str(view.uses_left)),
    Column("ENDS IN", _left),
    Column("METADATA", lambda view: ",".join(f"{key}={text}" for key, text in sorted(view.metadata.items()))),
    Column("JOINED", lambda view: ",".join(name[:8] for name in view.joined)),
]
