"""Say for each seeded bug which seed finds it first: `python -m simulation.find_bugs [NAME…]`."""

from __future__ import annotations

import sys

from harness.seeded_bugs import BUGS, seeded
from simulation.story import tell

MOST = 1000


def main() -> None:
    """Print a line a bug."""
    for name in sys.argv[1:] or BUGS:
        with seeded(name):
            found = ((seed, tell(seed).violations) for seed in range(MOST))
            seed, violations = next(((seed, why) for seed, why in found if why), (None, ["not found"]))
        print(f"{name}: seed {seed}: {violations[0]}", flush=True)


if __name__ == "__main__":
    main()
