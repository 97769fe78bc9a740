"""`unitctl cluster`: how the cluster is, and the brake on mass loss."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import output_option
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.phrases import place
from unitctl.render import Column, Style, age, escape, items_json, json_line, moment, out, size, table
from unitfleet.api import ClusterStatus, UnitView


@click.group(short_help="Show how the cluster is; hold or release the brake.")
def command() -> None:
    """Show how the cluster is; hold or release the brake on mass loss."""


@command.command(short_help="Show the leader, the store, machines, the brake, and units not as wanted.")
@output_option("table", "json", "jsonl")
@click.pass_obj
def status(invocation: Invocation, output: str) -> None:
    """Show the leader, the store, machines, the brake, and every unit that is not as wanted: why, since when."""
    cluster = connect(invocation).cluster()
    if output == "json":
        out(items_json(cluster.rev, [cluster]))
        return
    if output == "jsonl":
        out(json_line(cluster))
        return
    for line in report(cluster, Style(sys.stdout, no_color=invocation.no_color)):
        out(line)


@command.command(short_help="Stop placing the units of lost machines.")
@click.pass_obj
def hold(invocation: Invocation) -> None:
    """Stop placing the units of lost machines anew, until release: they stay where they are wanted."""
    connect(invocation).command_cluster("hold")
    out("held: units of lost machines are not placed anew until unitctl cluster release")


@command.command(short_help="Place the units of lost machines anew.")
@click.pass_obj
def release(invocation: Invocation) -> None:
    """Place the units of the machines lost up to now anew, at the pace that the fleet can start them."""
    connect(invocation).command_cluster("release")
    out("released: units of lost machines are placed anew")


def report(cluster: ClusterStatus, style: Style) -> list[str]:
    """The state of the cluster as lines."""
    leader = f"{cluster.leader} since {moment(cluster.leader_since)} ({age(cluster.leader_since)})"
    machines = _counts(cluster.machines)
    brake = style.state(escape(cluster.brake)) + (f": {escape(cluster.brake_why)}" if cluster.brake_why else "")
    fields = [
        ("Cluster", escape(f"{cluster.id} at revision {cluster.rev}")),
        (
            "Leader",
            escape(leader) if cluster.leader else style.paint("none: nothing is placed or moved now", "red"),
        ),
        ("Masters", escape(", ".join(cluster.masters)) or "-"),
        ("Store", escape(f"etcd {cluster.store_version}, {size(cluster.store_size)}")),
        ("Machines", escape(machines)),
        ("Suspect", escape(", ".join(cluster.suspect))),
        ("Lost", style.paint(escape(", ".join(cluster.lost)), "red") if cluster.lost else ""),
        ("Units", escape(_counts(cluster.units))),
        ("Brake", brake),
    ]
    lines = [f"{f'{title}:':>10} {text}" for title, text in fields if text]
    if cluster.unreadable:
        lines += [
            "",
            "what stands in the store and can't be read; it is left alone, and etcdctl del KEY removes it:",
        ]
        lines += [f"  {escape(why)}" for why in cluster.unreadable]
    lines.append("")
    if not cluster.attention:
        lines.append("every unit is as wanted")
        return lines
    count = len(cluster.attention)
    lines.append(f"{count} {'unit is' if count == 1 else 'units are'} not as wanted:")
    columns: list[Column[UnitView]] = [
        Column("UNIT", lambda view: view.name),
        Column("TARGET", lambda view: view.target.value),
        Column("STATE", lambda view: view.phase, is_state=True),
        Column("MACHINE", place),
        Column("SINCE", lambda view: age(view.since)),
        Column("WHY", lambda view: view.why),
    ]
    return lines + table(columns, cluster.attention, style)


def _counts(by_word: dict[str, int]) -> str:
    """3 ready, 1 lost."""
    return ", ".join(f"{count} {word}" for word, count in by_word.items() if count) or "none"
