"""The best host for the next of many units that ask the same, at the cost of what changed since the last one.

`choose` answers as `scheduler.place` would, but for the scores, of which it has the best two alone. It keeps, in
the scene, a ranking of hosts for each kind of request, and asks the rules again only about hosts that the scene
has touched since. What such a ranking can't know it leaves to `place`: peers, `Spread=`, and a unit that is
counted somewhere already.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

import msgspec

from unit_master.scene import Host, Scene, group_of
from unit_master.scheduler import Placed, Refused, Score, fits, place, reason_of, scores_of
from unitfleet.model import Requirements


class Ranking:
    """The hosts that take a unit which asks for this, the best first.

    Hosts with units that name others (`Conflicts=`, `Replaces=`) are kept aside: they look at names.
    """

    def __init__(self, unit: Requirements, scene: Scene) -> None:
        self._like = unit
        self._scene = scene
        self._seen = len(scene.touched)
        self._scores: dict[str, Score] = {}
        self.aside: set[str] = set()
        for host in scene.hosts.values():
            self._judge(host)
        self._heap = list(self._scores.values())
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._scores)

    def __contains__(self, machine: str) -> bool:
        return machine in self._scores

    def keep_up(self) -> None:
        """Judge the hosts anew that the scene has touched since the last time."""
        touched = self._scene.touched
        if self._seen == len(touched):
            return
        for machine in dict.fromkeys(touched[self._seen :]):
            score = self._judge(self._scene.hosts[machine])
            if score is not None:
                heapq.heappush(self._heap, score)
        self._seen = len(touched)

    def best_two(self) -> list[Score]:
        """Return the best score and the next, as far as there are."""
        found: list[Score] = []
        while self._heap and len(found) < 2:
            score = heapq.heappop(self._heap)
            # what stands here twice, or no more, is left behind
            if self._scores.get(score.machine) is score:
                found.append(score)
        for score in found:
            heapq.heappush(self._heap, score)
        return found

    def _judge(self, host: Host) -> Score | None:
        self._scores.pop(host.id, None)
        self.aside.discard(host.id)
        if host.wary or host.replacing:
            self.aside.add(host.id)
            return None
        if fits(self._like, host, self._scene) is not None:
            return None
        [score] = scores_of(self._like, (host,), self._scene)
        self._scores[host.id] = score
        return score


def choose(unit: Requirements, scene: Scene, *, but: Collection[str] = ()) -> Placed | Refused:
    """Find the best host for `unit`, as `place` does; `scores` are those of the best two hosts alone."""
    if (
        unit.machine_of
        or unit.unit in scene.seats
        or (unit.spread and group_of(unit.unit))
        or (unit.unit in scene.pinned and not unit.image)
    ):
        return place(unit, scene, but=but)
    ranking = _ranking(unit, scene)
    if any(machine in ranking for machine in but):
        return place(unit, scene, but=but)
    aside = [
        scene.hosts[machine]
        for machine in ranking.aside
        if machine not in but and fits(unit, scene.hosts[machine], scene) is None
    ]
    fitting = len(ranking) + len(aside)
    if not fitting:
        return place(unit, scene, but=but)  # which tells why
    scores = tuple(sorted((*ranking.best_two(), *scores_of(unit, aside, scene)))[:2])
    considered = len(scene.hosts) - sum(machine in scene.hosts for machine in set(but))
    return Placed(scores[0].machine, reason_of(unit, scores, fitting, considered), scores)


def _ranking(unit: Requirements, scene: Scene) -> Ranking:
    like = msgspec.structs.replace(unit, unit="", image=scene.pinned.get(unit.unit, unit.image))
    ranking = scene.rankings.get(like)
    if ranking is None:
        ranking = scene.rankings[like] = Ranking(like, scene)
    ranking.keep_up()
    return ranking
