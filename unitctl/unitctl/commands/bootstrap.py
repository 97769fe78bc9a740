"""`unitctl bootstrap`: user-data for hosts of one's own, CoreOS's converted, and what a host does with it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unitctl.arguments import output_option
from unitctl.bootstrap.options import plan_options, rendered
from unitctl.bootstrap.userdata import MOST_BYTES
from unitctl.failures import FAILURE, OK, Failure, raise_all
from unitctl.render import escape, out, say
from unitfleet.errors import NotFound
from unitfleet.problems import Severity


@click.group(short_help="Make user-data for hosts of your own, check it, convert CoreOS's.")
def command() -> None:
    """Make user-data for hosts of your own (cloud-init 22.4 or newer), check it, and convert CoreOS's.

    \b
      unitctl bootstrap render --role cluster --members 10.0.0.1,10.0.0.2,10.0.0.3 > user-data
      unitctl bootstrap validate user-data
      unitctl bootstrap convert coreos.yaml > user-data
      unitctl bootstrap launch --count 3 --image-id ami-0abc --user-data user-data --dry-run
    """


@command.command(short_help="Print user-data for cloud-init.")
@plan_options
@output_option("table", "json")
def render(output: str, **options: Any) -> None:
    """Print user-data for cloud-init: our settings, the package, and what starts it all.

    \b
      unitctl bootstrap render --role agent --etcd 10.0.0.1:2379,10.0.0.2:2379 --metadata role=adserver
    """
    from unitctl.bootstrap.userdata import check_size, size_said

    made = rendered(options)
    text = made.user_data.text()
    check_size(text, "render")
    if output == "json":
        _json({"user_data": text, "bytes": len(text.encode()), "notes": list(made.notes)})
    else:
        sys.stdout.write(text)
    for note in made.notes:
        say(f"note: {note}")
    say(size_said(text))


@command.command(short_help="Check user-data: YAML, size, our settings, units.")
@click.argument("file", metavar="FILE")
@output_option("table", "json")
def validate(file: str, output: str) -> int:
    """Check user-data by cloud-init's own schema where cloud-init is installed, and by what we know.

    That is: its size, YAML, the settings of agents and masters in it, and the units. FILE may be - for stdin.
    Exits 1 when something is wrong; warnings alone are no failure.
    """
    from unitctl.bootstrap import schema
    from unitctl.bootstrap.validate import validate as judge

    raw = _text_of(file)
    found, theirs = judge(raw), schema.ask(raw)
    wrong = [problem for problem in found if problem.severity is Severity.ERROR]
    if output == "json":
        findings = [
            {"line": problem.line, "severity": problem.severity, "message": problem.message, "hint": problem.hint}
            for problem in found
        ]
        _json({"findings": findings, "cloud_init": list(theirs.complaints), "cloud_init_absent": theirs.absent})
    else:
        for problem in found:
            out(escape(f"{problem.severity}: {problem.text(file)}"))
        for complaint in theirs.complaints:
            out(escape(f"error: {file}: cloud-init: {complaint}"))
    if theirs.absent:
        say(f"note: {theirs.absent}")
    if wrong or theirs.complaints:
        return FAILURE
    say(f"{file} is fine: {len(raw):,} of {MOST_BYTES:,} bytes")
    return OK


@command.command(short_help="Make user-data of a cloud-config of CoreOS.")
@click.argument("old", metavar="OLD")
@click.option("--members", metavar="ADDRESS,…", default="", help="The hosts that have etcd, if OLD can't say it.")
@click.option("--srv", metavar="NAME", default="", help="The same, found by DNS: the name of SRV records.")
@click.option("--etcd", metavar="HOST:PORT,…", default="", help="Members of etcd elsewhere: the host is an agent.")
@click.option("--package", metavar="URL|PATH", default="", help="Install this .deb, as for render.")
@output_option("table", "json")
def convert(old: str, output: str, **options: str) -> None:
    """Make user-data of a cloud-config of CoreOS; OLD is a file, or - for stdin.

    The user-data goes to stdout. On stderr stands each thing that has no form here, and each that became another.
    """
    from unitctl.bootstrap.coreos.convert import convert as make
    from unitctl.bootstrap.options import choice
    from unitctl.bootstrap.userdata import check_size, size_said

    made = make(_text_of(old), old, choice(options))
    text = made.user_data.text()
    check_size(text, f"convert {old}")
    if output == "json":
        told = {"dropped": made.report.dropped, "changed": made.report.changed}
        lists = {name: [asdict(said) for said in each] for name, each in told.items()}
        _json({"user_data": text, **lists})
    else:
        sys.stdout.write(text)
    for said in made.report.changed:
        say(f"note: {said.path}{f' (line {said.line})' if said.line else ''}: {said.why}")
    for said in made.report.dropped:
        say(f"{said.path}{f' (line {said.line})' if said.line else ''}: no form: {said.why}")
    say(size_said(text))


@command.command(short_help="Make this host what its orders say; run at boot.")
@click.argument("file", metavar="[FILE]", default="/etc/unitfleet/bootstrap.toml")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@click.option("--root", metavar="DIR", default="", help="Write below DIR, start nothing: for an image being made.")
@click.option("--imds", metavar="URL", default="", help="EC2's instance-metadata service (UNITFLEET_IMDS).")
def apply(file: str, dry_run: bool, root: str, imds: str) -> int:
    """Make this host what its orders say: settings, etcd where it is a member, services.

    Runs at each boot; what is as it should be is left alone. Each step is told with its reason.
    """
    from unitctl.bootstrap import hostplan
    from unitctl.bootstrap.host.carry_out import Hands, carry_out, run
    from unitctl.bootstrap.host.decide import decide
    from unitctl.bootstrap.host.facts import gather
    from unitfleet.imds import ADDRESS

    plan = hostplan.read(_text_of(file).decode("utf-8", "replace"), file)
    address = imds or os.environ.get("UNITFLEET_IMDS") or ADDRESS
    decision = decide(plan, gather(plan, Path(root or "/"), address))
    for note in decision.notes:
        say(f"note: {note}")
    if dry_run:
        for line in decision.told():
            out(escape(line))
        failures = []
    else:
        failures = carry_out(decision, Hands(Path(root or "/"), None if root else run))
    raise_all([Failure(why) for why in (*failures, *filter(None, [decision.held]))])
    return OK


@command.command(short_help="Launch instances on EC2 with user-data.")
@click.option("--count", metavar="N", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many.")
@click.option("--type", "kind", metavar="TYPE", default="t3.small", show_default=True, help="The instance type.")
@click.option("--image-id", metavar="AMI", required=True, help="The image: Debian or Ubuntu with cloud-init.")
@click.option("--subnet", metavar="ID", default="", help="The subnet; the default one otherwise.")
@click.option("--security-group", "groups", metavar="ID", multiple=True, help="A security group; repeat for more.")
@click.option("--key-name", metavar="NAME", default="", help="The SSH key.")
@click.option("--region", metavar="NAME", default="", help="The region; boto3's own choice otherwise.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="A tag of each instance; repeat for more.")
@click.option("--user-data", metavar="FILE", default="", help="User-data made before; the options of render else.")
@click.option("--dry-run", is_flag=True, help="Tell what would be launched, ask EC2 whether it may be, and stop.")
@plan_options
@output_option("table", "json")
def launch(output: str, dry_run: bool, **options: Any) -> None:
    """Launch instances on EC2 with user-data, and print their ids. Credentials are found as boto3 finds them.

    \b
      unitctl bootstrap launch --count 3 --image-id ami-0abc --user-data user-data --dry-run
      unitctl bootstrap launch --image-id ami-0abc --role agent --etcd 10.0.0.1:2379 --tag role=adserver
    """
    from unitctl.bootstrap.ec2 import Ec2
    from unitctl.bootstrap.launching import wanted

    asked = wanted(options, lambda: _text_of(options["user_data"]))
    ec2 = Ec2(options["region"])
    told = asked.told(ec2.region)
    if dry_run:
        ec2.rehearse(asked)
        say(f"nothing is launched; EC2 would: {told}")
        if output == "json":
            _json({"dry_run": True, "region": ec2.region, "instances": []})
        return
    say(f"launching {told}")
    instances = ec2.launch(asked)
    if output == "json":
        _json({"dry_run": False, "region": ec2.region, "instances": [asdict(each) for each in instances]})
        return
    for instance in instances:
        out(escape(f"{instance.id}  {instance.private_ip or '-'}  {instance.state}"))


def _json(value: object) -> None:
    out(json.dumps(value, indent=2, ensure_ascii=False))


def _text_of(file: str) -> bytes:
    """Read a file, or stdin for `-`; raises `NotFound`."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
