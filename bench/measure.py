"""What the benches share: how a figure is printed, how a bench is run and bounded, and the outside witness.

Importing this module makes the tests' harness importable (`harness.…`): benches run on the same real daemons,
etcd and Docker Engines as the tests do.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import psutil
from aims import Aim
from aims import at_least as at_least  # for the benches, which have all from here
from aims import at_most as at_most

TOP = Path(__file__).resolve().parents[1]
sys.path.append(str(TOP / "tests"))

from harness.cluster import Cluster, Machine  # noqa: E402 (found by the line above)

LABEL = "unitfleet.unit"

PROCESS = "[Service]\nExecStart=/bin/sleep 100000\n\n[X-Fleet]\n"


class Bench:
    """One bench: prints a JSON line a figure on stdout, and what a person wants to know on stderr."""

    def __init__(self, name: str, options: argparse.Namespace, directory: Path) -> None:
        self.name = name
        self.quick: bool = options.quick
        self.runs: int = options.runs
        self.only: str = options.only
        self.directory = directory
        """For logs; it goes with the bench."""

    def wants(self, part: str) -> bool:
        """Tell whether this part of the bench is asked for."""
        return self.only in ("", part)

    def figure(self, case: str, values: Sequence[float], unit: str, aim: Aim | None = None) -> None:
        """Print what was measured in `values`, one for each run."""
        median = statistics.median(values)
        print(line(self.name, case, values, unit, aim), flush=True)
        verdict = "" if aim is None else f", aim {aim}: {'met' if aim.met_by(median) else 'MISSED'}"
        say(f"  {case}: {median:.4g} {unit} ({min(values):.4g} to {max(values):.4g}, {len(values)} runs{verdict})")


def line(bench: str, case: str, values: Sequence[float], unit: str, aim: Aim | None) -> str:
    """Return the JSON line of one figure: `value` is the median."""
    figure = {
        "bench": bench,
        "case": case,
        "value": _rounded(statistics.median(values)),
        "unit": unit,
        "aim": None if aim is None else str(aim),
        "min": _rounded(min(values)),
        "max": _rounded(max(values)),
        "runs": len(values),
    }
    return json.dumps(figure, ensure_ascii=False)


def say(text: str) -> None:
    """Tell the person who watches."""
    print(text, file=sys.stderr, flush=True)


def main(
    name: str,
    about: str,
    parts: Sequence[str],
    measure: Callable[[Bench], Awaitable[None]],
    *,
    runs: int,
    quick_runs: int,
    limit_s: float,
) -> None:
    """Run a bench from the command line. It ends after `limit_s` for `runs` runs at the latest, and cleans up."""
    parser = argparse.ArgumentParser(prog=f"bench/{name}", description=about)
    parser.add_argument("--runs", type=int, default=0, metavar="N", help=f"runs of each case (default {runs})")
    parser.add_argument("--quick", action="store_true", help=f"a short look: {quick_runs} runs, smaller cases")
    parser.add_argument("--only", default="", choices=parts, help="one part of it alone")
    options = parser.parse_args()
    options.runs = options.runs or (quick_runs if options.quick else runs)
    if options.runs < 1:
        parser.error("--runs must be 1 or more")

    async def work(directory: Path) -> None:
        await measure(Bench(name, options, directory))

    drive(parser, work, limit_s * max(1.0, options.runs / runs))


def drive(parser: argparse.ArgumentParser, work: Callable[[Path], Awaitable[None]], limit_s: float) -> None:
    """Do the work of a command, with a directory that goes with it; after `limit_s` it is ended.

    An interrupt or SIGTERM cancels it, so that all is cleaned up.
    """
    if shutil.which("etcd") is None:
        parser.exit(1, "error: cannot measure: no etcd on PATH\nhint: apt-get install etcd-server\n")
    _compile()
    try:
        asyncio.run(_bounded(work, limit_s))
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C, SIGTERM: all was cleaned up
        parser.exit(130, "interrupted\n")
    except TimeoutError as error:
        parser.exit(1, f"error: {parser.prog} took too long and was ended{f': {error}' if str(error) else ''}\n")


async def _bounded(work: Callable[[Path], Awaitable[None]], limit_s: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="unitfleet-bench-") as directory:
        async with asyncio.timeout(limit_s):
            await work(Path(directory))


def _compile() -> None:
    """Compile the programs, as an installation does: a first run would measure Python's compiler."""
    for package in ("core/unitfleet", "agent/unit_agent", "master/unit_master", "unitctl/unitctl"):
        compileall.compile_dir(TOP / package, quiet=2)


# --- processes


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, in units of 10^6 bytes."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time that these processes took so far, in seconds."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


# --- containers


def container(image: str, network: str) -> str:
    """Return a unit that sleeps in a container, and that ends at once when it is stopped."""
    return (
        f"[Container]\nImage={image}\nExec=sleep 100000\nNetwork={network}\nPull=never\nStopSignal=SIGKILL\n"
        "\n[X-Fleet]\n"
    )


def running_containers(cluster: Cluster, machines: Iterable[Machine]) -> dict[str, list[tuple[Machine, str]]]:
    """Ask the Engines themselves which units run: the machine and id of each copy. Blocks."""
    found: dict[str, list[tuple[Machine, str]]] = {}
    for machine in machines:
        with contextlib.closing(cluster.engine(machine)) as client:
            for each in client.api.containers(filters={"label": LABEL}):
                found.setdefault(each["Labels"][LABEL], []).append((machine, each["Id"]))
    return found


def started_at(cluster: Cluster, copies: Mapping[str, list[tuple[Machine, str]]]) -> dict[str, float]:
    """Return when the one copy of each unit started, by its Engine's word, in seconds since 1970. Blocks."""
    found = {}
    with contextlib.ExitStack() as stack:
        clients = {
            machine.name: stack.enter_context(contextlib.closing(cluster.engine(machine)))
            for machine in {machine.name: machine for held in copies.values() for machine, _ in held}.values()
        }
        for unit, held in copies.items():
            [(machine, copy_id)] = held
            told = clients[machine.name].api.inspect_container(copy_id)["State"]["StartedAt"]
            found[unit] = datetime.fromisoformat(told).timestamp()
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def cores() -> int:
    """Return how many cores there are to share."""
    return os.cpu_count() or 1
