"""`unitctl cluster`: how the cluster is, and the brake on mass loss."""

from __future__ import annotations

import sys

import click

from unitctl.arguments import output_option
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.phrases import place
from unitctl.render import Column, Style, age, escape, items_json, json_line, moment, out, size, table
from unitfleet.api import ClusterStatus, EtcdProtection, UnitView


@click.group(short_help="Make a cluster; show how it is; hold or release the brake; protect etcd.")
def command() -> None:
    """Make a cluster's authority; show how the cluster is; hold or release the brake on mass loss."""


@command.command(short_help="Make a cluster's authority and its first identities.")
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    default="/var/lib/unitfleet/master/tls",
    show_default=True,
    help="Where the first master's identity and the authority's key are kept.",
)
@click.option("--name", metavar="NAME", default="unitfleet", show_default=True, help="The cluster's name.")
@click.option(
    "--hosts", metavar="HOST,…", default="", help="Where masters are reached (this host's address, name)."
)
@click.option("--port", type=click.IntRange(1, 65535), default=4001, show_default=True, help="Their port.")
def init(directory: str, name: str, hosts: str, port: int) -> None:
    """Make a cluster's authority and its first identities: a master's, and an admin's for this user.

    The authority's key signs every host of the cluster for ten years: back it up, and let nobody else read it.
    What is there already is never overwritten.

    \b
      unitctl cluster init --hosts 10.0.0.1,10.0.0.2
    """
    import os
    from pathlib import Path

    from unitctl.founding import found
    from unitfleet.names import validate_machine_name

    validate_machine_name(name)
    words = tuple(word for word in hosts.split(",") if word.strip())
    made = found(Path(directory).absolute(), name, words, port, os.environ)
    for line in (
        f"made the authority of {name}, SHA-256 {made.digest}",
        f"  {made.directory}  the authority's key (ca.key: back it up) and this master's identity, 90 days",
        f"  {made.admin_directory}  your own identity as an admin, 90 days",
        f"  context {name} in {made.config_file}: {', '.join(made.endpoints)}",
        "next:",
        f"  unit-master --tls-dir {made.directory} --listen 0.0.0.0:{port} --etcd …",
        "  unitctl machines join-token          # and on each host: unit-agent --join TOKEN",
    ):
        out(escape(line))


@command.command(short_help="Make or renew an admin's identity, where the authority's key is.")
@click.argument("name", metavar="NAME")
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    default="/var/lib/unitfleet/master/tls",
    show_default=True,
    help="Where the authority's key is.",
)
@click.option("--out", "folder", metavar="FOLDER", required=True, help="Where the admin's identity is written.")
def admit(name: str, directory: str, folder: str) -> None:
    """Make an admin's identity, or renew one, with the authority's key on this host; no master is asked.

    It is good for 90 days, and opens everything.

    \b
      unitctl cluster admit ada --out ~/.config/unitctl/unitfleet
    """
    from pathlib import Path

    from unitctl import founding
    from unitfleet.names import validate_machine_name

    validate_machine_name(name)
    made = Path(folder).expanduser().absolute()
    ends = founding.admit(Path(directory), made, name)
    out(escape(f"{name} is an admin until {moment(ends)}: ca.pem, cert.pem and key.pem in {made}"))


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


@command.command("protect-etcd", short_help="Let each identity write its own keys of etcd alone.")
@click.option("--off", is_flag=True, help="Let every certificate that etcd takes write every key again.")
@click.pass_obj
def protect_etcd(invocation: Invocation, off: bool) -> None:
    """Let each identity write its own keys of etcd and no others, by etcd's users and roles.

    Masters become administrators of etcd, each machine gets a user and a role of its own, now and when it joins,
    and etcd begins to ask who somebody is: by the name in the certificate. Safe to run again, which sets right
    what is not. Refused where that would lock a master out. Every agent and master has to be of this version.

    \b
      unitctl cluster protect-etcd
      unitctl cluster protect-etcd --off
    """
    for line in protection(connect(invocation).protect_etcd(not off)):
        out(line)


def protection(made: EtcdProtection) -> list[str]:
    """What etcd was told, and what is still to be done, as lines."""
    if not made.on:
        was = "asks nobody any more" if made.changed else "asked nobody before"
        return [f"etcd {was}: whoever has a certificate that it takes may write every key"]
    lines = [
        f"etcd {'asks from now on' if made.changed else 'asks'} who writes what:",
        escape(f"  {made.machines} machine{'s' * (made.machines != 1)}, each its own keys alone"),
        escape(f"  {', '.join(made.masters)}: everything, as master{'s' * (len(made.masters) != 1)}"),
        "  root: everything, for you: unitctl cluster admit root --out FOLDER makes its certificate",
    ]
    if made.others:
        others = ", ".join(made.others)
        lines += [
            escape(
                f"  {others}: everything too, and was there before. If you don't know who made that, take it away:"
            ),
            "    etcdctl user delete NAME; of root: etcdctl user passwd root",
        ]
    if not made.holds:
        lines.append(
            escape(
                f"etcd {made.version} can be talked out of it: mistakes are held back, not who means harm; "
                "unitctl doctor names the versions that hold"
            )
        )
    return lines


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
