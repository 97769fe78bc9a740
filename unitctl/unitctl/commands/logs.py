"""`unitctl logs`: what units wrote."""

from __future__ import annotations

import queue
import sys

import click

from unitctl.arguments import MachineName, output_option, registered, units_argument
from unitctl.client import Api, connect
from unitctl.context import Invocation
from unitctl.failures import INTERRUPTED, OK
from unitctl.render import Style, escape, json_line, moment, out, say
from unitctl.stream import Ended, Line, LogFeed, Lost, Read
from unitfleet.api import LogLine


@click.command(short_help="Show what units wrote.")
@units_argument
@click.option("-f", "--follow", is_flag=True, help="Go on as they write, until ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="How many lines, the last."
)
@click.option("--machine", type=MachineName(), metavar="M", default="", help="Of the copy on this machine only.")
@click.option("-t", "--times", is_flag=True, help="Begin each line with when it was written.")
@output_option("table", "jsonl")
@click.pass_obj
def command(
    invocation: Invocation,
    units: tuple[str, ...],
    follow: bool,
    lines: int,
    machine: str,
    times: bool,
    output: str,
) -> int:
    """Show what units wrote, wherever they run. With several units each line begins with unit@machine.

    \b
      unitctl logs -f adserver@1
      unitctl logs -n 100 'adserver@*'
    """
    api = connect(invocation)
    found = registered(api, units)
    writer = _Writer(
        several=len(found) > 1,
        times=times,
        as_json=output == "jsonl",
        style=Style(sys.stdout, no_color=invocation.no_color),
    )
    if follow:
        try:
            return _follow(api, found, lines, machine, writer)
        except KeyboardInterrupt:
            return INTERRUPTED
    texts = [Line(name, line) for name in found for line in api.logs(name, lines=lines, machine=machine)]
    if len(found) > 1:
        texts.sort(key=lambda line: line.line.at)
    for line in texts:
        writer.write(line.unit, line.line)
    return OK


def _follow(api: Api, names: list[str], lines: int, machine: str, writer: _Writer) -> int:
    """Write lines as they come, until the last of the units is no more."""
    shared: queue.Queue[Read] = queue.Queue()
    feeds = [LogFeed(api.transport, name, lines, machine, shared) for name in names]
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

    def __init__(self, *, several: bool, times: bool, as_json: bool, style: Style) -> None:
        self._several = several
        self._times = times
        self._json = as_json
        self._style = style

    def write(self, unit: str, line: LogLine) -> None:
        """Write one line; to a terminal only what it can't obey, but for tabs."""
        if self._json:
            out(
                json_line(
                    {
                        "unit": unit,
                        "machine": line.machine,
                        "at": line.at,
                        "stream": line.stream,
                        "text": line.text,
                    }
                )
            )
            return
        head = f"{moment(line.at)}  " if self._times else ""
        if self._several:
            source = f"{unit}@{line.machine}" if line.machine else unit
            head += f"{self._style.paint(escape(source), 'dim')}: "
        out(head + (escape(line.text, keep="\t") if sys.stdout.isatty() else line.text))
