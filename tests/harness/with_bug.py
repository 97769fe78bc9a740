"""Start a daemon with a fault in its code: `python -m harness.with_bug NAME unit_master --config …`.

The checks of a real cluster are held to the same faults as those of the simulation (`harness.seeded_bugs`).
"""

from __future__ import annotations

import runpy
import sys

from harness import seeded_bugs


def main() -> None:
    """Put the fault in and become the daemon."""
    if len(sys.argv) < 3 or sys.argv[1] not in seeded_bugs.BUGS:
        known = "\n  ".join(seeded_bugs.BUGS)
        raise SystemExit(f"usage: python -m harness.with_bug NAME MODULE [ARGUMENT]…; NAME is one of\n  {known}")
    _, name, module, *arguments = sys.argv
    seeded_bugs.apply(name)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
