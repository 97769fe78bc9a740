"""bench/compare: the Docker Engine alone, Docker Swarm mode and Unitfleet in turn, on the same five hosts.

They take turns within each run; while one is measured, nothing of the others is there. All are seen from outside
in one way: by the events of every Engine. `starts` and `big` count from the one request that asks for all of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import drive, say
from reporting.figures import figures, table
from versus import cost, failover, idle, leader, starts
from versus.engine import ask
from versus.lines import Lines, versions
from versus.swarm import OFFLINE
from versus.turns import PLAIN, Round, Setting, in_turn

from harness.engines import Engines
from harness.sites import Lab

HOSTS = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """What is measured: by whom, how often, with how many containers, and how long one turn may take."""

    about: str
    one: Callable[[Round, Setting], Awaitable[None]]
    settings: Sequence[Setting]
    runs: int
    counts: Sequence[int]
    turn_s: float


KINDS = {
    "starts": Kind("seconds and CPU to so many containers", starts.starts, PLAIN, 5, (20, 100, 200), 400),
    "failover": Kind("power-off of a host until all run again", failover.failover, failover.SETTINGS, 5, (), 200),
    "leader": Kind("power-off of the leader's host", leader.leader, leader.SETTINGS, 5, (), 400),
    "idle": Kind("CPU and memory while nothing happens", idle.idle, PLAIN, 1, (100,), 300),
    "big": Kind("a thousand containers at once", starts.big, PLAIN, 1, (1000,), 1500),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told = "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
    parser.add_argument("kind", choices=("all", *KINDS), help=f"{told}; all of them: some hours")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="turns of each (5; idle and big 1)")
    parser.add_argument(
        "--counts", default="", metavar="N,…", help="containers: starts 20,100,200; idle 100; big 1000"
    )
    parser.add_argument("--net", default="host,bridge", metavar="NET,…", help="networks of starts (host,bridge)")
    parser.add_argument("--who", default="", metavar="WHO,…", help="engine, swarm, unitfleet; all when left out")
    parser.add_argument("--settings", default="", metavar="NAME;…", help="settings of failover; all when left out")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long idle looks (60)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="append the lines to this file, too")
    options = parser.parse_args()
    if options.kind == "all" and (options.counts or options.settings):
        parser.error("--counts and --settings are those of one kind")
    kinds = list(KINDS) if options.kind == "all" else [options.kind]
    turns = {kind: _turns(KINDS[kind], options) for kind in kinds}
    if not all(turns.values()):
        parser.error("nobody is left of --who and --settings")
    counts = [int(each) for each in options.counts.split(",")] if options.counts else []
    if options.kind == "idle" and len(counts) > 1:
        parser.error("--counts of idle is one number")
    if reason := Engines.available() or cost.available():
        parser.exit(1, f"error: cannot compare: it {reason}\n")

    async def work(directory: Path) -> None:
        os.environ.update(OFFLINE)  # for every Engine, whoever is measured
        lab = Lab([f"m{host + 1}" for host in range(HOSTS)])
        lab.up()
        try:
            engine = str(ask(lab.engines.socket(0), "GET", "/version")["Version"])
            lines = Lines(options.out, versions(engine))
            try:
                for kind in kinds:
                    what = counts or KINDS[kind].counts
                    round = Round(lab, lines, what, options.net.split(","), options.seconds, say)
                    for number, run in enumerate(turns[kind], 1):
                        lines.next_run(kind)
                        say(f"{kind}, run {number} of {len(turns[kind])}")
                        for setting in run:
                            await KINDS[kind].one(round, setting)
            finally:
                say(table(figures(lines.written)))
        finally:
            lab.down()

    limit_s = sum(len(run) * KINDS[kind].turn_s for kind, runs in turns.items() for run in runs)
    drive(parser, work, 60 + limit_s)


def _turns(kind: Kind, options: argparse.Namespace) -> list[list[Setting]]:
    """Return who is measured in each run, in order."""
    settings = [each for each in kind.settings if _named(options.who, ",", each.who)]
    settings = [each for each in settings if _named(options.settings, ";", each.name)]
    return [in_turn(settings, run) for run in range(options.runs or kind.runs)] if settings else []


def _named(wanted: str, separator: str, name: str) -> bool:
    return not wanted or name in wanted.split(separator)


if __name__ == "__main__":
    main()
