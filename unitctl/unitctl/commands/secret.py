"""`unitctl secret`: values that units get as files and nobody else can read."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unitctl.arguments import table_options
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.failures import raise_all
from unitctl.render import Column, Style, age, escape, moment, out, say, show
from unitfleet.accessapi import SecretView
from unitfleet.errors import Refused, UnitfleetError
from unitfleet.secretkey import MOST_BYTES


@click.group(short_help="Give units passwords and keys as files; nobody can read them back.")
def command() -> None:
    """Give units passwords and keys as files; nobody can read them back.

    A unit asks for one with Secret=NAME in [Container], or in [X-Fleet] beside a [Service]. Setting and removing
    takes an admin, listing an operator.
    """


@command.command("set", short_help="Give a secret its value, from a file or stdin.")
@click.argument("name", metavar="NAME")
@click.option("--from-file", type=click.Path(path_type=Path), metavar="F", help="Read it from this file.")
@click.pass_obj
def set_(invocation: Invocation, name: str, from_file: Path | None) -> None:
    """Give a secret its value: the bytes of the file or of stdin, as they are.

    Copies that run keep what they have until they are restarted.

    \b
      printf %s "$PASSWORD" | unitctl secret set db-password
      unitctl secret set tls.key --from-file key.pem
    """
    made = connect(invocation).set_secret(name, _value(name, from_file))
    if not made.changed:
        out(escape(f"{name}  has this value already, version {made.version}"))
        return
    out(escape(f"{name}  set, version {made.version}"))
    if made.version > 1 and not invocation.quiet:
        say("units that run keep the old value until they are restarted: unitctl restart UNIT")


@command.command(short_help="List secrets: versions, units, machines; never a value.")
@table_options
@click.pass_obj
def ls(invocation: Invocation, output: str, fields: str, no_legend: bool) -> None:
    """List secrets: which version, who set it when, which units name it, which machines hold it."""
    rev, secrets = connect(invocation).secrets()
    show(
        output,
        rev=rev,
        items=secrets,
        names=[secret.name for secret in secrets],
        columns=_COLUMNS,
        rows=secrets,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


@command.command(short_help="Remove secrets; units that name them start no more.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def rm(invocation: Invocation, names: tuple[str, ...]) -> None:
    """Remove secrets. Copies that run keep what they have; units that name them are not started any more."""
    api = connect(invocation)
    errors: list[UnitfleetError] = []
    for name in dict.fromkeys(names):
        try:
            api.remove_secret(name)
            out(escape(f"{name}  removed"))
        except UnitfleetError as error:
            errors.append(error)
    raise_all(errors)


def _value(name: str, path: Path | None) -> bytes:
    """Return the value, and refuse one that is too long before it is sent."""
    try:
        if path is not None:
            with path.open("rb") as file:
                value = file.read(MOST_BYTES + 1)
        else:
            if sys.stdin.isatty():
                say(f"type the value of {name}, then Ctrl-D (it is shown: better pipe it in)")
            value = sys.stdin.buffer.read(MOST_BYTES + 1)
    except OSError as error:
        raise Refused(
            f"cannot set secret {name}: can't read {error.filename or 'stdin'}: {error.strerror}"
        ) from error
    if len(value) > MOST_BYTES:
        raise Refused(f"cannot set secret {name}: it has more than {MOST_BYTES} bytes")
    return value


def _machines(secret: SecretView) -> str:
    held = [
        one.machine_name
        + ("" if one.version == secret.version else f" (v{one.version})")
        + ("!" if one.why else "")
        for one in secret.machines
    ]
    return ", ".join(held) or "-"


_COLUMNS: list[Column[SecretView]] = [
    Column("NAME", lambda secret: secret.name),
    Column("VERSION", lambda secret: str(secret.version)),
    Column("SET", lambda secret: age(secret.set_at)),
    Column("BY", lambda secret: secret.set_by),
    Column("UNITS", lambda secret: ", ".join(secret.units) or "-"),
    Column("MACHINES", _machines),
    Column("AT", lambda secret: moment(secret.set_at), wide=True),
]
