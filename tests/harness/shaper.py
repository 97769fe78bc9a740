"""A process that shapes on the host it lives on, told by lines of JSON: the shaping of an agent without the agent.

Run it inside a network namespace. The first line are the settings, each line after it the units that run there;
each answer tells what was done.
"""

from __future__ import annotations

import json
import sys

import msgspec

from unit_agent.shaping.figures import counted_devices, net_limits
from unit_agent.shaping.host import Ask, Host, Settings
from unitfleet.model import Bandwidth


def main() -> None:
    host = Host(msgspec.convert(json.loads(sys.stdin.readline()), Settings))
    for line in sys.stdin:
        order = json.loads(line)
        asks = [Ask(unit, pid, Bandwidth(**said)) for unit, pid, said in order["asks"]]
        dirty = None if order["look"] else frozenset[int]()
        outcome = host.round(asks, dirty, keep=False, pulling=order["pulling"])
        counted = host.count(counted_devices(outcome))
        answer = {
            "done": [op.reason for op in outcome.done],
            "failed": list(outcome.failed.values()),
            "repaired": outcome.repaired,
            "took_s": outcome.took_s,
            "net": msgspec.to_builtins(net_limits("m", "m", 0.0, outcome, counted, outcome.pull_trouble)),
            "loaded": "pyroute2" in sys.modules,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
