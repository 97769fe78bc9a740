"""Say for each seeded bug which seed of which kind of story finds it first:

python -m simulation.find_bugs [--kind KIND] [--seeds N] [NAME…]
"""

from __future__ import annotations

import argparse

from harness.seeded_bugs import BUGS, seeded
from simulation.mixes import MIXES
from simulation.story import tell

MOST = 1000


def main() -> None:
    """Print a line a bug and kind."""
    parser = argparse.ArgumentParser(prog="find_bugs", description=__doc__)
    parser.add_argument("--kind", action="append", choices=MIXES, help="of these kinds alone (all)")
    parser.add_argument("--seeds", type=int, default=MOST, help=f"at most ({MOST})")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a bug (all)")
    arguments = parser.parse_args()
    for name in arguments.names or BUGS:
        for kind in arguments.kind or MIXES:
            print(f"{name} {kind}: {_first(name, kind, arguments.seeds)}", flush=True)


def _first(name: str, kind: str, seeds: int) -> str:
    """Tell stories with the bug until one breaks a promise, and say which did, and how."""
    with seeded(name):
        for seed in range(seeds):
            if violations := tell(seed, kind).violations:
                return f"seed {seed}: {violations[0]}"
    return "not found"


if __name__ == "__main__":
    main()
