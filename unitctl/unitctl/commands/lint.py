"""`unitctl lint`: what is wrong with unit files, without a cluster; and what podman would make of them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from unitctl.arguments import output_option
from unitctl.context import Invocation
from unitctl.failures import FAILURE, OK, Failure, raise_all
from unitctl.render import Style, escape, items_json, out, say
from unitctl.unitfiles import Files, UnitFile
from unitfleet.errors import InvalidUnit
from unitfleet.lint import Finding, Report, lint, unreadable
from unitfleet.podman import assertions, files, service, text
from unitfleet.podman.assertions import Outcome
from unitfleet.podman.files import Source
from unitfleet.podman.service import Service
from unitfleet.podman.text import Refused
from unitfleet.problems import Problem, Severity

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


@click.command(short_help="Say what is wrong with unit files; no cluster is needed.")
@click.argument("paths", metavar="FILE|DIR|-...", nargs=-1, required=True)
@click.option("--instance", metavar="I", default="", help="Read a template (x@.service) as its instance x@I.")
@click.option("--name", metavar="NAME", default="", help="What the unit read from standard input is called.")
@click.option("--show", type=click.Choice(("podman",)), help="Print the podman command that Quadlet would run.")
@click.option(
    "--assertions", "assertive", is_flag=True, help="Check the lines '## assert-…' of files, nothing else."
)
@output_option("table", "json")
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    instance: str,
    name: str,
    show: str | None,
    assertive: bool,
    output: str,
) -> None:
    """Read unit files as a master would and say everything that is wrong with them: file:line:column, and a hint.

    Ends with 0 when every file can be submitted. Of a DIR all unit files are read, - is standard input. Files of
    Podman Quadlet are read with their drop-ins (x.container.d/*.conf).

    \b
      unitctl lint units/
      unitctl lint --instance 7 adserver@.service
      unitctl lint --show=podman web.container
    """
    there = Files(paths, instance=instance, name=name)
    if show is not None:
        _show(there)
        return
    judge = _asserted if assertive else _report
    reports = [judge(file, there) for file in there.found]
    if output == "json":
        out(items_json(0, [report.record() for report in reports]))
    else:
        _write(ctx.obj, reports)
    ctx.exit(OK if all(report.loads for report in reports) else FAILURE)


def _write(invocation: Invocation, reports: Sequence[Report]) -> None:
    style = Style(sys.stdout, no_color=invocation.no_color)
    counts = dict.fromkeys(Severity, 0)
    for found in (found for report in reports for found in report.findings):
        severity = found.problem.severity
        counts[severity] += 1
        word = f" {severity}: "
        out(escape(found.text()).replace(word, f" {style.paint(severity, _COLOURS[severity])}: ", 1))
    if not invocation.quiet:
        say(
            f"{_count(len(reports), 'file')}: {_count(counts[Severity.ERROR], 'error')}, "
            f"{_count(counts[Severity.WARNING], 'warning')}"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _report(file: UnitFile, there: Files) -> Report:
    try:
        return lint(there.read(file), name=file.unit, filename=file.filename)
    except InvalidUnit as error:
        return unreadable(file.path, file.unit, error.message, error.hint or "")


def _show(there: Files) -> None:
    """Print one line for each file; those of which Quadlet would make nothing are errors."""
    failures = []
    for file in there.found:
        try:
            start = _generated(file, there).start
        except (InvalidUnit, Refused) as error:
            failures.append(Failure(f"cannot show {file.path}: {error}"))
        else:
            out(shlex.join([os.path.basename(start[0]), *start[1:]]))
    raise_all(failures)


def _generated(file: UnitFile, there: Files) -> Service:
    kind = files.kind(file.filename)
    if kind not in ("container", "volume", "network"):
        raise Refused(f"it is no .container, .volume or .network file: {file.filename}")
    source = Source(
        filename=file.filename,
        folder=os.path.abspath(file.folder),
        text=text.parse(there.read(file).text),
        siblings=there.beside(file),
    )
    return service.generate(source, present=os.path.exists)


def _asserted(file: UnitFile, there: Files) -> Report:
    """Return the report on the assertions of a file alone: what of them does not hold."""
    try:
        merged = there.read(file)
    except InvalidUnit as error:
        return unreadable(file.path, file.unit, error.message, error.hint or "")
    try:
        made = _generated(file, there).text
        outcome = Outcome(made, "\n".join(made.warnings))
    except Refused as error:
        outcome = Outcome(None, str(error))
    failed = []
    for assertion in assertions.read(merged.text):
        reason = assertions.failed(assertion, outcome)
        if reason is not None:
            problem = Problem(assertion.line, Severity.ERROR, f"{assertion} does not hold: {reason}", column=1)
            path, line = merged.origin(assertion.line)
            failed.append(Finding(path, replace(problem, line=line)))
    return Report(file.path, file.unit, {}, None, "", tuple(failed))
