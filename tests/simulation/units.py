"""The units that a fleet may have: what each of its kinds is about is in its text."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

HEAD = "[Unit]\nStartLimitIntervalSec=0\n"
SERVICE = "[Service]\nExecStart=/bin/ad\nRestart=always\nRestartSec=0.2\n"
CONTAINER = "[Container]\nImage=ad:1\nPublishPort=8080:80\n[Service]\nRestart=always\nRestartSec=0.2\n"
ONCE = "[Service]\nType=oneshot\nExecStart=/bin/ad\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A unit. `apart_from`: it never shares a machine with these; `beside`: it runs where that one does.

    `run_s`: it ends by itself, well, after so long.
    """

    name: str
    text: str
    apart_from: tuple[str, ...] = ()
    beside: str = ""
    everywhere: bool = False
    strict: bool = False
    run_s: float | None = None


def _service(fleet: str = "", head: str = HEAD + SERVICE) -> str:
    return f"{head}[X-Fleet]\n{fleet}" if fleet else head


A = Kind("a.service", _service("Conflicts=b.service\n"), apart_from=("b.service",))
B = Kind("b.service", _service())
C = Kind("c.service", _service("Spread=zone\n"))
D = Kind("d.service", _service("MachineOf=c.service\n"), beside="c.service")
E = Kind("e.service", _service("Global=true\n"), everywhere=True)
F = Kind("f.service", HEAD + CONTAINER, apart_from=("g.service",))
G = Kind("g.service", HEAD + CONTAINER)
H = Kind("h.service", HEAD + ONCE, run_s=1.0)
I = Kind("i.service", _service("OnMachineLoss=wait\n"))  # noqa: E741
S = Kind("s.service", _service("Singleton=strict\n"), strict=True)
T = Kind("t.service", _service("Singleton=strict\nConflicts=s.service\n"), apart_from=("s.service",), strict=True)
U = Kind("u.service", _service("MachineOf=s.service\n"), beside="s.service")

Group = tuple[Kind, ...]

GROUPS: tuple[Group, ...] = ((A, B), (C, D), (E,), (F, G), (H,), (I,), (S, T), (S, U))


def drawn(dice: random.Random, always: Collection[Group] = ()) -> tuple[Kind, ...]:
    """Return the units of a fleet: two to four groups of those that have to do with each other.

    Where some are there `always`, up to two more are drawn.
    """
    more = (0, 1, 2) if always else (2, 3, 3, 4)
    groups = dice.sample([group for group in GROUPS if group not in always], dice.choice(more))
    kinds = {kind for group in (*always, *groups) for kind in group}
    return tuple(sorted(kinds, key=lambda kind: kind.name))
