"""`unitctl dev`: a cluster of three machines on this host, to try things on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from unitctl import context
from unitctl.arguments import table_options
from unitctl.context import Invocation
from unitctl.dev import cluster, start
from unitctl.dev.cluster import Daemon
from unitctl.dev.layout import find
from unitctl.dev.members import MACHINES
from unitctl.dev.power import Killed
from unitctl.render import Column, Style, escape, joined, out, say, show, warn

F = TypeVar("F", bound=Callable[..., Any])

MOVED_AFTER_S = 6  # profile fast: a lease of 5 s, and 1 s of grace


def _state_option(function: F) -> F:
    return click.option(
        "--state",
        metavar="DIR",
        help="The folder that holds everything (UNITFLEET_DEV_STATE); ~/.local/state/unitfleet/dev by default.",
    )(function)


@click.group(short_help="Run a cluster of three machines on this host, to try things on.")
def command() -> None:
    """Run a cluster on this host, to try things on: one etcd, two masters, three agents m1, m2 and m3.

    All of it listens on loopback and lives in one folder. Units run as processes, and as containers where a
    Docker Engine answers.

    \b
      unitctl dev up
      unitctl start ./my.service
      unitctl dev kill m2        and see its units move
      unitctl dev up             brings m2 back
      unitctl dev down           leaves nothing
    """


@command.command(short_help="Start what does not run yet, and wait until all machines are ready.")
@_state_option
def up(state: str | None) -> None:
    """Start what does not run yet, and wait until all three machines are ready."""
    started = start.up(find(state, os.environ), os.environ)
    out("all machines are ready" if started else "everything runs already")
    if (unitctl := _unitctl()) != "unitctl":
        say(f"note: another API than this cluster's is in use; {unitctl} … talks to this one")


@command.command(short_help="Show every daemon: whether it runs, its pid and address.")
@_state_option
@table_options
@click.pass_obj
def status(invocation: Invocation, state: str | None, output: str, fields: str, no_legend: bool) -> None:
    """Show every daemon of the cluster: whether it is up, its pid, address and log.

    STATE is up; off for a machine that `dev kill` switched off; dead for what ended by itself.
    """
    daemons = cluster.status(find(state, os.environ))
    show(
        output,
        rev=0,
        items=daemons,
        names=[daemon.name for daemon in daemons],
        columns=_COLUMNS,
        rows=daemons,
        style=Style(sys.stdout, no_color=invocation.no_color),
        fields=fields,
        legend=not no_legend,
    )


@command.command(short_help="Switch a machine off: agent, units and containers, without a last word.")
@click.argument("machine", type=click.Choice(list(MACHINES)))
@_state_option
def kill(machine: str, state: str | None) -> None:
    """Switch a machine off as a power cut would: its agent, supervisors, units and containers end at once.

    Its units move to the others some seconds later. When a second machine goes within a minute the brake holds:
    many machines that vanish at once look like a fault of the network.
    """
    killed, others = cluster.kill(find(state, os.environ), machine)
    unitctl = _unitctl()
    out(escape(f"{machine} is off: {_went_down(killed)}"))
    if others:
        gone = joined([*others, machine])
        warn(f"{gone} went away within a minute: the brake holds, as for a fault of the network")
        until = "until they return" if len(others) + 1 == len(MACHINES) else "a minute, or until they return"
        say(f"units that have not moved yet wait {until}, or until you release it")
        say(f"see:      {unitctl} cluster status")
        say(f"release:  {unitctl} cluster release")
    else:
        say(f"in about {MOVED_AFTER_S} s it is held lost, and its units start on other machines")
        say(f"see:      {unitctl} events -f, {unitctl} list-units")
    say("return:   unitctl dev up")


@command.command(short_help="End everything and remove its folder.")
@_state_option
def down(state: str | None) -> None:
    """End every daemon, unit and container of the cluster, and remove its folder and context."""
    layout = find(state, os.environ)
    if cluster.down(layout, os.environ):
        out("the cluster is gone")
    else:
        out(f"nothing to end: there is no cluster in {layout.root}")


_COLUMNS: list[Column[Daemon]] = [
    Column("NAME", lambda daemon: daemon.name),
    Column("STATE", lambda daemon: daemon.state, is_state=True),
    Column("PID", lambda daemon: str(daemon.pid) if daemon.pid else ""),
    Column("ADDRESS", lambda daemon: daemon.address),
    Column("METADATA", lambda daemon: daemon.metadata),
    Column("LOG", lambda daemon: daemon.log),
]


def _went_down(killed: Killed) -> str:
    """The agent, adserver@2.service, 1 container (5 processes)."""
    parts = [*killed.units]
    if killed.containers:
        parts.append(f"{killed.containers} {'container' if killed.containers == 1 else 'containers'}")
    return f"{', '.join(['its agent', *parts])} ({killed.processes} processes)"


def _unitctl() -> str:
    """How to call unitctl so that it talks to this cluster."""
    env = os.environ
    in_use = env.get("UNITCTL_ENDPOINT") or env.get("UNITCTL_CONTEXT") or context.current(env)
    return "unitctl" if in_use == start.CONTEXT else "unitctl -c dev"
