"""The options that say what a host is to be, shared by the verbs that make user-data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitfleet.errors import InvalidConfig
from unitfleet.problems import BadValue

if TYPE_CHECKING:
    from unitctl.bootstrap.coreos.convert import Choice
    from unitctl.bootstrap.hostplan import HostPlan
    from unitctl.bootstrap.render import Rendered
    from unitctl.bootstrap.scripts import Package

F = TypeVar("F", bound=Callable[..., Any])

ROLES = ("agent", "master", "cluster")
NAMES = ("hostname", "instance-id", "address")

_OF_AGENTS = ("metadata", "egress", "ingress", "pull_limit")
_OPTIONS = (
    click.option(
        "--role",
        type=click.Choice(ROLES),
        help="agent: runs units. master: serves the API. cluster: one text for all hosts; those on the list have "
        "etcd and a master too.",
    ),
    click.option("--etcd", metavar="HOST:PORT,…", default="", help="Members of etcd, for agent and master."),
    click.option("--members", metavar="ADDRESS,…", default="", help="The hosts that have etcd, for cluster."),
    click.option("--srv", metavar="NAME", default="", help="The same, found by DNS: the name of SRV records."),
    click.option(
        "--name-from",
        type=click.Choice(NAMES),
        default="hostname",
        show_default=True,
        help="Where a machine's name comes from.",
    ),
    click.option("--metadata", metavar="K=V,…", default="", help="What units ask for in MachineMetadata=."),
    click.option(
        "--ec2-metadata",
        is_flag=True,
        help="Add the instance's id, type, zone, region and tags, and drain the host when EC2 is to end it.",
    ),
    click.option(
        "--warm",
        metavar="IMAGE",
        multiple=True,
        help="An image that the host holds before it takes units (agent), or all machines do; repeat for more.",
    ),
    click.option(
        "--package",
        metavar="URL|PATH",
        default="",
        help="Install this .deb: a URL, with #sha256=HEX to have it checked, or an absolute path on the host.",
    ),
    click.option("--egress", metavar="RATE", default="", help="Bit/s that units may send together, as 1G."),
    click.option("--ingress", metavar="RATE", default="", help="Bit/s that units may get together."),
    click.option("--pull-limit", metavar="RATE", default="", help="Bit/s of image pulls; none, auto."),
    click.option(
        "--set",
        "settings",
        metavar="DAEMON.KEY=VALUE",
        multiple=True,
        help="Any setting of agent, master or etcd, as agent.log-max=4G; repeat for more.",
    ),
)


def plan_options(function: F) -> F:
    """Add every option that says what a host is to be."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def rendered(options: Mapping[str, Any]) -> Rendered:
    """Make user-data of the options; raises `InvalidConfig`."""
    from unitctl.bootstrap.render import Wishes, render

    if not options["role"]:
        raise InvalidConfig("cannot render: no role is named", hint=f"--role {'|'.join(ROLES)}")
    return render(Wishes(_plan(options), _package(options)))


def choice(options: Mapping[str, Any]) -> Choice:
    """Read what an operator adds to a conversion; raises `InvalidConfig`."""
    from unitctl.bootstrap.coreos.convert import Choice
    from unitctl.bootstrap.hostplan import member, srv_name
    from unitctl.bootstrap.settings import AGENT

    if sum(bool(options[name]) for name in ("members", "srv", "etcd")) > 1:
        raise InvalidConfig("cannot convert: --members, --srv and --etcd exclude each other")
    try:
        members = tuple(member(word.strip()) for word in options["members"].split(",") if word.strip())
        srv = srv_name(options["srv"]) if options["srv"] else ""
    except BadValue as error:
        raise InvalidConfig(f"cannot convert: {error}") from error
    etcd = AGENT.read("etcd", options["etcd"]) if options["etcd"] else ()
    return Choice(members, srv, etcd if isinstance(etcd, tuple) else (), _package(options))


def _package(options: Mapping[str, Any]) -> Package | None:
    from unitctl.bootstrap import scripts

    try:
        return scripts.package(options["package"]) if options["package"] else None
    except BadValue as error:
        hint = "--package https://HOST/unitfleet.deb#sha256=HEX, or /path/on/the/host.deb"
        raise InvalidConfig(f"cannot use --package: {error}", hint=hint) from error


def _plan(options: Mapping[str, Any]) -> HostPlan:
    from unitctl.bootstrap import hostplan
    from unitctl.bootstrap.settings import AGENT

    role = options["role"]
    tables = _tables(options)
    if options["etcd"] and role == "cluster":
        raise InvalidConfig(
            "cannot use --etcd with the role cluster: its members have it",
            hint="--members ADDRESS,… or --srv NAME",
        )
    if options["etcd"]:
        tables[role]["etcd"] = AGENT.read("etcd", options["etcd"])
    if role != "cluster" and "etcd" not in tables[role]:
        raise InvalidConfig(
            f"cannot render the role {role}: no member of etcd is named", hint="--etcd 10.0.0.1:2379,10.0.0.2:2379"
        )
    if role == "master" and (tables["agent"] or options["ec2_metadata"]):
        raise InvalidConfig(
            "cannot use settings of agents in the role master: such a host runs no units",
            hint="--role cluster has both",
        )
    if role == "agent" and tables["master"]:
        raise InvalidConfig("cannot use settings of masters in the role agent", hint="--role cluster has both")
    if options["ec2_metadata"]:
        tables["agent"].setdefault("drain-on-notice", True)
    if role != "cluster" and tables["etcd"]:
        raise InvalidConfig(f"cannot use settings of etcd in the role {role}: it has none", hint="--role cluster")
    members = [word.strip() for word in options["members"].split(",") if word.strip()]
    said = {
        "role": role,
        "members": members,
        "srv": options["srv"],
        "name-from": options["name_from"],
        "ec2-metadata": options["ec2_metadata"],
        "warm": [] if role == "agent" else list(options["warm"]),
        **tables,
    }
    return hostplan.from_table({key: value for key, value in said.items() if value})


def _tables(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each program, read."""
    from unitctl.bootstrap.render import read_setting
    from unitctl.bootstrap.settings import AGENT

    tables: dict[str, dict[str, Any]] = {"agent": {}, "master": {}, "etcd": {}}
    for name in _OF_AGENTS:
        if options[name]:
            key = name.replace("_", "-")
            tables["agent"][key] = AGENT.read(key, options[name])
    if options["role"] == "agent" and options["warm"]:
        tables["agent"]["warm"] = AGENT.read("warm", list(options["warm"]))
    for text in options["settings"]:
        daemon, key, value = read_setting(text)
        tables[daemon][key] = value
    return tables
