"""Two searches: breadth first through every state, and random walks into the depth of large scenarios."""

from __future__ import annotations

import itertools
import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from model.cluster import Cluster
from model.rules import Rules
from model.state import Broken
from model.states import State

LONGEST_REST = 2000
"""Fair steps after which a walk that has not come to rest is taken for one that never does."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search saw. `complete`: every state within the scenario's bounds was visited.

    `broken`: the promise that does not hold, or ""; then `trace` are the shortest steps to it (of a walk: all).
    """

    broken: str
    trace: Sequence[str] = ()
    states: int = 0
    steps: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = False


@dataclass(slots=True)
class _Graph:
    """The states met, in the order in which they were met, each with the one it was met from."""

    states: list[State] = field(default_factory=list)
    parents: array[int] = field(default_factory=lambda: array("q"))
    depths: array[int] = field(default_factory=lambda: array("H"))
    fair_from: array[int] = field(default_factory=lambda: array("l"))
    fair_to: array[int] = field(default_factory=lambda: array("l"))
    rests: list[int] = field(default_factory=list)

    def add(self, state: State, parent: int) -> int:
        self.states.append(state)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        return len(self.states) - 1

    def path(self, to: int) -> list[State]:
        found = []
        while to >= 0:
            found.append(self.states[to])
            to = self.parents[to]
        return found[::-1]

    def without_rest(self, expanded: int) -> int | None:
        """Return a state from which no fair steps lead to rest, or None; those not expanded are taken for good."""
        good = bytearray(expanded) + b"\1" * (len(self.states) - expanded)
        for rest in self.rests:
            good[rest] = 1
        changed = True
        while changed:  # edges mostly lead forward, so a few sweeps backward are enough
            changed = False
            for edge in range(len(self.fair_from) - 1, -1, -1):
                if good[self.fair_to[edge]] and not good[self.fair_from[edge]]:
                    good[self.fair_from[edge]] = changed = True
        missing = good.find(0)
        return None if missing < 0 else missing


def explore(rules: Rules, seconds: float = 600.0, most: int = 6_000_000) -> Found:
    """Visit every state breadth first, for at most `seconds` and `most` states."""
    began = time.monotonic()
    cluster, graph = Cluster(rules), _Graph()
    start = cluster.initial()
    index = {start: graph.add(start, -1)}
    steps = expanded = 0

    def found(broken: str = "", to: int = -1, last: Broken | None = None) -> Found:
        trace = tell(cluster, graph.path(to), last) if broken else ()
        took = time.monotonic() - began
        complete = not broken and expanded == len(graph.states)
        return Found(broken, trace, len(graph.states), steps, graph.depths[-1], took, complete)

    canonical, wrong, states = cluster.canonical, cluster.wrong, graph.states
    while expanded < len(states):
        if expanded % 64 == 0 and (len(states) > most or time.monotonic() - began > seconds):
            break
        rests = True
        try:
            for _, _, fair, raw in cluster.steps(states[expanded]):
                steps += 1
                state = canonical(raw)[0]
                number = index.get(state)
                if number is None:
                    number = index[state] = graph.add(state, expanded)
                    if broken := wrong(state):
                        return found(broken, number)
                if fair and number != expanded:
                    rests = False
                    graph.fair_from.append(expanded)
                    graph.fair_to.append(number)
        except Broken as broken:
            return found(broken.args[0], expanded, broken)
        if rests:
            if wrong_here := cluster.wrong_at_rest(states[expanded]):
                return found(wrong_here, expanded)
            graph.rests.append(expanded)
        expanded += 1
    missing = graph.without_rest(expanded)
    if missing is not None:
        return found("I3: no fair way leads to rest", missing)
    return found()


def walk(rules: Rules, seed: int, walks: int, seconds: float, depth: int = 120) -> Found:
    """Walk at random `walks` times, each at most `depth` steps, then by fair steps to rest."""
    began = time.monotonic()
    dice, cluster = random.Random(seed), Cluster(rules)
    steps = deepest = done = 0
    while done < walks and time.monotonic() - began < seconds:
        path = [cluster.initial()]
        last: Broken | None = None
        try:
            broken = _one_walk(cluster, dice, path, depth)
        except Broken as error:
            broken, last = error.args[0], error
        steps += len(path) - 1
        deepest = max(deepest, len(path) - 1)
        done += 1
        if broken:
            took = time.monotonic() - began
            return Found(broken, tell(cluster, path, last), done, steps, deepest, took)
    return Found("", (), done, steps, deepest, time.monotonic() - began)


def _one_walk(cluster: Cluster, dice: random.Random, path: list[State], depth: int) -> str:
    while True:
        here = path[-1]
        hurries = len(path) > depth
        found = [(fair, cluster.canonical(raw)[0]) for _, _, fair, raw in cluster.steps(here)]
        fair_ones = [state for fair, state in found if fair and state != here]
        others = [] if hurries else [state for fair, state in found if not fair and state != here]
        if not fair_ones and (wrong := cluster.wrong_at_rest(here)):
            return wrong
        if not fair_ones and not others:
            return ""
        if len(path) > depth + LONGEST_REST:
            return "I3: a walk never comes to rest"
        # misfortune and commands are many and their number is small: not all of them at the start
        pool = others if others and (not fair_ones or dice.random() < 0.15) else fair_ones
        path.append(dice.choice(pool))
        if broken := cluster.wrong(path[-1]):
            return broken


def tell(cluster: Cluster, path: Sequence[State], last: Broken | None = None) -> list[str]:
    """Return the steps along a path in words; machines keep the names they had at first."""
    names = [f"m{m + 1}" for m in range(cluster.rules.machines)]
    told = []
    for here, there in itertools.pairwise(path):
        for label, m, _, raw in _until_broken(cluster, here):
            state, order = cluster.canonical(raw)
            if state == there:
                told.append(_named(label, m, names))
                names = names if order is None else [names[before] for before in order]
                break
    if last is not None:
        told.append(_named(last.args[1], last.args[2], names))
    return told


def _named(label: str, m: int, names: Sequence[str]) -> str:
    if "{m}" in label:
        return label.replace("{m}", names[m])
    return f"{label} on {names[m]}" if m >= 0 else label


def _until_broken(cluster: Cluster, state: State) -> list[tuple[str, int, bool, State]]:
    found = []
    try:
        for step in cluster.steps(state):
            found.append(step)
    except Broken:
        pass
    return found
