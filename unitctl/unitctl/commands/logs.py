"""`unitctl logs`: what units wrote."""

from __future__ import annotations

import heapq
import math
import queue
import re
import sys
from collections.abc import Iterable

import click

from unitctl.arguments import MachineName, output_option, registered, some_units_argument
from unitctl.client import Api, connect
from unitctl.context import Invocation
from unitctl.failures import INTERRUPTED, OK
from unitctl.loglines import all_path, read_lines, unit_path
from unitctl.render import Style, escape, json_line, out, say
from unitctl.stream import Ended, Line, LogFeed, Lost, Read
from unitctl.when import Moment, iso
from unitfleet.api import LogLine
from unitfleet.logquery import LogQuery, pattern
from unitfleet.problems import BadValue
from unitfleet.shipped import GAP

LINES = 10
FOUND = 1000
"""Lines that a search over all units shows at most, unless told otherwise."""


@click.command(short_help="Show what units wrote.")
@some_units_argument
@click.option("-f", "--follow", is_flag=True, help="Go on as they write, until ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), help=f"How many lines, the last ({LINES}; all with a time or -p)."
)
@click.option("--since", type=Moment(), metavar="TIME", help="From then on, wherever they ran: 2h, 14:05, a date.")
@click.option("--until", type=Moment(), metavar="TIME", help="Up to then.")
@click.option("-p", "--previous", is_flag=True, help="Of the last run that has ended.")
@click.option("-g", "--grep", metavar="RE", default="", help="Only lines in which this is found.")
@click.option("--join", is_flag=True, help="Keep the lines of a stack trace together.")
@click.option("-a", "--all", "everything", is_flag=True, help="Search the lines of all units, in the archive.")
@click.option("--machine", type=MachineName(), metavar="M", default="", help="Written on this machine only.")
@click.option("-t", "--times", is_flag=True, help="Begin each line with when it was written.")
@output_option("table", "json", "jsonl")
@click.pass_obj
def command(
    invocation: Invocation,
    units: tuple[str, ...],
    follow: bool,
    lines: int | None,
    since: float | None,
    until: float | None,
    previous: bool,
    grep: str,
    join: bool,
    everything: bool,
    machine: str,
    times: bool,
    output: str,
) -> int:
    """Show what units wrote, wherever they ran. With several units each line begins with unit@machine.

    Where lines are missing, a line on stderr says which and why.

    \b
      unitctl logs -f adserver@1
      unitctl logs adserver@3 --since 2h      (whole, although it moved)
      unitctl logs --previous webserver@1     (why did it fail?)
      unitctl logs --all --grep 'timeout|refused' --since 14:00
    """
    if not units and not everything:
        raise click.UsageError("missing argument 'UNIT...'; --all searches those of all units")
    query = _query(lines, since, until, previous, grep, join, follow)
    if everything and (follow or previous or join):
        raise click.UsageError("--all searches the archive: it takes no --follow, --previous or --join")
    api = connect(invocation)
    found = [] if everything else registered(api, units)
    writer = _Writer(
        several=everything or len(found) > 1,
        times=times,
        output=output,
        style=Style(sys.stdout, no_color=invocation.no_color),
    )
    if follow:
        try:
            return _follow(api, found, query, machine, writer)
        except KeyboardInterrupt:
            return INTERRUPTED
    texts: list[Iterable[tuple[str, LogLine]]]
    if everything:
        words = {"machine": machine} if machine else {}
        paths = [all_path(query, {**words, "unit": unit}) for unit in units] or [all_path(query, words)]
        texts = [((line.unit, line) for line in read_lines(api.transport, path)) for path in paths]
    else:
        texts = [_of_unit(api, name, query, machine) for name in found]
    for unit, line in heapq.merge(*texts, key=lambda text: text[1].at):
        writer.write(unit, line)
    writer.end()
    return OK


def _query(
    lines: int | None,
    since: float | None,
    until: float | None,
    previous: bool,
    grep: str,
    join: bool,
    follow: bool,
) -> LogQuery:
    """Make the query; what can't be is refused before anything is asked."""
    if since is not None and until is not None and until < since:
        raise click.UsageError("--until is before --since")
    try:
        if grep:
            pattern(grep)
    except BadValue as error:
        raise click.UsageError(f"cannot use --grep: {str(error).removeprefix('grep=')}") from error
    bounded = since is not None or until is not None or previous
    return LogQuery(
        lines=lines if lines is not None else -1 if bounded else LINES,
        since=max(since or 0.0, 0.0),
        until=math.inf if until is None else until,
        previous=previous,
        grep=grep,
        join=join,
        follow=follow,
    )


def _of_unit(api: Api, name: str, query: LogQuery, machine: str) -> Iterable[tuple[str, LogLine]]:
    for line in read_lines(api.transport, unit_path(name, query, machine)):
        yield name, line


def _follow(api: Api, names: list[str], query: LogQuery, machine: str, writer: _Writer) -> int:
    """Write lines as they come, until the last of the units is no more."""
    shared: queue.Queue[Read] = queue.Queue()
    feeds = [LogFeed(api.transport, name, query, machine, shared) for name in names]
    for feed in feeds:
        feed.start()
    running, lost = len(feeds), False
    while True:
        match feeds[0].next(None):
            case Line(unit=unit, line=line):
                lost = False
                writer.write(unit, line)
                sys.stdout.flush()
            case Lost(error=error):
                if not lost:
                    say(f"{error.message}; trying again")
                lost = True
            case Ended(error=error):
                running -= 1
                if not running:
                    raise error
                say(error.message)


class _Writer:
    """Writes lines as asked."""

    def __init__(self, *, several: bool, times: bool, output: str, style: Style) -> None:
        self._several = several
        self._times = times
        self._output = output
        self._style = style
        self._listed = 0

    def write(self, unit: str, line: LogLine) -> None:
        """Write one line; to a terminal only what it can't obey, but for tabs and the newlines of joined lines."""
        if self._output != "table":
            self._write_json(unit, line)
            return
        if line.stream == GAP:
            sys.stdout.flush()
            say(f"{f'{iso(line.at)}  ' if self._times else ''}{unit}: {line.text}")
            return
        head = f"{iso(line.at)}  " if self._times else ""
        if self._several:
            source = f"{unit}@{line.machine}" if line.machine else unit
            head += f"{self._style.paint(escape(source), 'dim')}: "
        text = re.sub(r"\r$", "", line.text)
        out(head + (escape(text, keep="\t\n") if sys.stdout.isatty() else text))

    def end(self) -> None:
        """Close what was opened."""
        if self._output == "json":
            out("]" if self._listed else "[]")

    def _write_json(self, unit: str, line: LogLine) -> None:
        shown = json_line(
            {
                "unit": unit,
                "machine": line.machine,
                "at": line.at,
                "stream": line.stream,
                "text": line.text,
                "epoch": line.epoch,
                "seq": line.seq,
                "file": line.file,
            }
        )
        if self._output == "json":
            out(f"{',' if self._listed else '['}{shown}")
        else:
            out(shown)
        self._listed += 1
