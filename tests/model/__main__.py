"""Run the protocol's model by hand: `scripts/model [fixed|holes|bugs|walks] [name] [seconds]`.

One JSON line a run on stdout, the steps that lead to a broken promise on stderr. `fixed`: every scenario, whose
promises should hold; `holes`: a sentence is left out, `bugs`: a bug is seeded, each should be found; `walks`:
random walks into every scenario. `name`: those with it in their name. `seconds`: of each run (480). The exit
status is 0 when all came out as it should.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator

from model.rules import Rules
from model.scenarios import BUGS, HOLES, NEEDLESS, SCENARIOS, deeper, without
from model.search import Found, explore, walk


def main(arguments: list[str]) -> int:
    """Run what the arguments name and return the exit status."""
    kind = arguments[0] if arguments else "fixed"
    part = arguments[1] if len(arguments) > 1 else ""
    seconds = float(arguments[2]) if len(arguments) > 2 else 480.0
    if kind not in ("fixed", "holes", "bugs", "walks"):
        print(__doc__, file=sys.stderr)
        return 2
    as_expected = True
    for name, rules, breaks in _chosen(kind, part):
        found = walk(deeper(rules), 1, 1_000_000, seconds) if kind == "walks" else explore(rules, seconds)
        _print(f"{kind} {name}", found)
        as_expected &= bool(found.broken) == breaks
    return 0 if as_expected else 1


def _chosen(kind: str, part: str) -> Iterator[tuple[str, Rules, bool]]:
    """Yield name, rules, and whether a promise is expected to break."""
    match kind:
        case "holes":
            every = [(name, without(name, rules), True) for name, rules in HOLES.items()]
            every += [(name, without(name, rules), False) for name, rules in NEEDLESS.items()]
        case "bugs":
            every = [(name, dataclasses.replace(rules, bug=name), True) for name, rules in BUGS.items()]
        case _:
            every = [(name, rules, False) for name, rules in SCENARIOS.items()]
    exact = [one for one in every if one[0] == part]
    yield from exact or [one for one in every if part in one[0]]


def _print(name: str, found: Found) -> None:
    line = dataclasses.asdict(found)
    trace = line.pop("trace")
    line["seconds"] = round(found.seconds, 1)
    print(json.dumps({"run": name, **line, "length": len(trace)}), flush=True)
    for number, step in enumerate(trace, 1):
        print(f"  {number:3} {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
