"""`unitctl doctor`: what is wrong with the cluster, or will be, and what to do about it."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

import click

from unitctl import here
from unitctl.arguments import output_option
from unitctl.client import Api
from unitctl.context import Invocation, config_file, find
from unitctl.failures import FAILURE, OK, UNREACHABLE, Unreachable
from unitctl.render import Style, escape, items_json, out
from unitctl.transport import Transport
from unitfleet.errors import InvalidConfig, NotFound
from unitfleet.findings import Finding, Severity, worst_first

_COLOURS = {Severity.PROBLEM: "red", Severity.WARNING: "yellow", Severity.NOTE: "bold", Severity.OK: "green"}


@click.command(short_help="Say what is wrong with the cluster, or will be, and what to do about it.")
@output_option("table", "json")
@click.pass_context
def command(ctx: click.Context, output: str) -> None:
    """Examine the cluster, worst first: etcd, machines, units, drivers, disks, images, clocks, versions, …

    Ends with 0 when nothing is worse than a note, with 1 otherwise. Where no API answers it says what can be
    seen from here, and ends with 7.
    """
    invocation: Invocation = ctx.obj
    rev, examined_by, findings = _examine(invocation)
    ordered = worst_first(findings)
    if output == "json":
        out(items_json(rev, ordered))
    else:
        for line in report(ordered, examined_by, Style(sys.stdout, no_color=invocation.no_color)):
            out(line)
    worst = max((finding.severity.rank for finding in ordered), default=0)
    ctx.exit(UNREACHABLE if not examined_by else FAILURE if worst > Severity.NOTE.rank else OK)


def _examine(invocation: Invocation) -> tuple[int, str, list[Finding]]:
    """Return the revision, the master that examined ("" when none answered), and all that was found."""
    try:
        context = find(invocation, os.environ)
    except (InvalidConfig, NotFound) as error:
        return 0, "", [here.unusable(error)]
    transport = Transport(context)
    found = here.warned(context)
    files = (str(config_file(os.environ)), os.path.expanduser(context.token_file))
    sent, began = time.time(), time.monotonic()
    try:
        told = Api(transport).doctor()
    except Unreachable as error:
        found += here.endpoints(transport, answered=False) or [here.unusable(error)]
        return 0, "", found + here.from_the_future(files, time.time())
    found += here.clock(told.master, told.at, sent, time.monotonic() - began)
    if len(transport.endpoints) > 1:
        found += here.endpoints(transport, answered=True)
    return told.rev, told.master, [*found, *told.findings]


def report(findings: Sequence[Finding], examined_by: str, style: Style) -> list[str]:
    """Write findings as lines: one each, and below it why it matters and what to do."""
    width = max((len(finding.about) for finding in findings), default=0)
    lines = []
    for finding in findings:
        severity = style.paint(f"{finding.severity:<8}", _COLOURS[finding.severity])
        lines.append(f"{severity} {escape(finding.about):<{width}}  {escape(finding.what)}")
        indent = " " * (8 + 1 + width + 2)
        lines += [f"{indent}{escape(finding.why)}"] if finding.why else []
        lines += [f"{indent}{style.paint('fix:', 'bold')} {escape(finding.fix)}"] if finding.fix else []
    counts = Counter(finding.severity for finding in findings)
    told = [_count(counts[severity], severity) for severity in reversed(Severity) if counts[severity]]
    by = f"examined by {examined_by}" if examined_by else "no API answered: this is what can be seen from here"
    return [*lines, "", escape(f"{', '.join(told) or 'nothing found'}; {by}")]


def _count(number: int, severity: Severity) -> str:
    plural = number != 1 and severity is not Severity.OK
    return f"{number} {severity}{'s' if plural else ''}"
