"""`scripts/chaos`: faults on a real cluster, checked from outside; a line of JSON a fault."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.campaign import TOP, Plan, Run, done
from chaos.faults.drawing import FAMILIES
from chaos.faults.fault import KINDS
from chaos.rig import missing
from chaos.soak import Soak
from harness.engines import Engines

PROOF = TOP / "docs" / "proof" / "chaos.jsonl"


def main(argv: Sequence[str]) -> int:
    """Do one command and return the exit code: 0 all held, 1 something was violated, 2 it can't be run here."""
    arguments = _parser().parse_args(argv)
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="let faults happen, one after the other")
    run.add_argument("--seed", type=int, required=True)
    run.add_argument("--faults", type=int, required=True, metavar="N", help="so many more than the seed has lines")
    run.add_argument("--only", type=lambda text: tuple(text.split(",")), default=(), metavar="KIND,…")
    run.add_argument("--minutes", type=float, default=600.0, help="begin none after so long")
    run.add_argument("--out", type=Path, default=PROOF, metavar="FILE", help=f"default: {PROOF.relative_to(TOP)}")
    run.set_defaults(run=_run)
    soak = commands.add_parser("soak", help="let faults happen for long, and see that nothing grows")
    soak.add_argument("--minutes", type=float, default=30.0)
    soak.add_argument("--per-minute", type=float, default=2.0, metavar="N")
    soak.add_argument("--seed", type=int, default=1)
    soak.set_defaults(run=_soak)
    listed = commands.add_parser("list", help="show the kinds of faults")
    listed.set_defaults(run=_list)
    return parser


def _cannot() -> bool:
    """Say why faults can't be run here, if so; SIGTERM leaves nothing behind from here on, as ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    if reason := Engines.available() or missing():
        print(f"cannot run faults here: {reason}", file=sys.stderr)
    return bool(reason)


def _run(arguments: argparse.Namespace) -> int:
    if _cannot():
        return 2
    if unknown := set(arguments.only) - set(KINDS):
        print(f"no such kind of fault: {', '.join(sorted(unknown))}; see scripts/chaos list", file=sys.stderr)
        return 2
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    first = done(arguments.out, arguments.seed)
    plan = Plan(arguments.seed, first, first + arguments.faults, arguments.only)
    run = Run(plan, arguments.out, until=time.monotonic() + 60.0 * arguments.minutes)
    ran = asyncio.run(run.run())
    print(f"{ran} faults of seed {arguments.seed}, {run.violated} with a violation", file=sys.stderr)
    return 1 if run.violated else 0


def _soak(arguments: argparse.Namespace) -> int:
    if _cannot():
        return 2
    soak = Soak(minutes=arguments.minutes, per_minute=arguments.per_minute, seed=arguments.seed)
    return 0 if asyncio.run(soak.run()) else 1


def _list(arguments: argparse.Namespace) -> int:
    for family in FAMILIES:
        print((family.__doc__ or "").split("\n")[0])
        for kind in KINDS.values():
            if kind.family == family.__name__:
                print(f"  {kind.name:20s} {kind.what}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
