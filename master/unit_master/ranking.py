"""The best host for the next of many units that ask the same, at the cost of what changed since the last one.

`choose` answers as `scheduler.place` would, but for the scores, of which it has the best two alone. Units fall
into classes of those that ask the same. The scene keeps a ranking of hosts for each class, in which a host is
judged anew when something was placed there or left. What concerns one name alone is left out and looked up
for that unit: its own old places, whose Conflicts= name it, its container's name.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping

import msgspec

from unit_master.neighbours import Counts
from unit_master.rules import is_pinned_to, unmet_wishes
from unit_master.scene import Host, Scene, cpu_weight, group_of, memory_weight, millis
from unit_master.scheduler import Placed, Refused, Score, fits, place, reason_of, scores_of
from unit_master.suitable import Row, Suitable
from unitfleet.model import MachineStatus, Requirements

MOST_JUDGED = 100_000
"""Hosts in all rankings together: those that were not asked for longest are dropped."""

Entry = tuple[int, float, int, bool, str]
"""A score but for the siblings: wishes that are not met, share, units, whether it pulls, machine."""


class Ranking:
    """The hosts that take a unit of this class, the best first; by their value of its Spread= key."""

    def __init__(self, unit: Requirements, image: str, scene: Scene, suitable: Suitable) -> None:
        self._like = msgspec.structs.replace(unit, unit="")
        self._image = image
        self._spread = unit.spread if group_of(unit.unit) else ""
        self._scene = scene
        self._suitable = suitable
        self._named = [scene.neighbours.named(pattern) for pattern in unit.conflicts]
        self._avoided = [scene.neighbours.named(pattern) for pattern in unit.avoid]
        self.refused: Refused | None = None
        self._build()

    def _build(self) -> None:
        self._suitable.keep_up()
        self._seen = len(self._scene.touched)
        self.heaps: dict[str, list[Entry]] = {}
        self.sizes: dict[str, int] = {}
        found = self._judged(self._suitable.rows.values())
        self._entries = {entry[-1]: entry for entry in found}
        if self._spread:
            for entry in found:
                self.heaps.setdefault(self.zone(self._scene.hosts[entry[-1]]), []).append(entry)
        elif found:
            self.heaps[""] = found
        for zone, heap in self.heaps.items():
            heapq.heapify(heap)
            self.sizes[zone] = len(heap)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, machine: str) -> bool:
        return machine in self._entries

    def zone(self, host: Host) -> str:
        """Return the host's value of the Spread= key, "" where nothing is spread."""
        return host.metadata.get(self._spread, "") if self._spread else ""

    def keep_up(self) -> None:
        """Judge the hosts anew that the scene has touched since the last time."""
        self._suitable.keep_up()
        touched = self._scene.touched
        if self._seen == len(touched):
            return
        self.refused = None
        machines = touched[self._seen :] if len(touched) - self._seen < 2 else set(touched[self._seen :])
        if len(machines) * 4 > len(self._suitable.rows) > 8:
            self._build()  # costs less
            return
        self._seen = len(touched)
        for machine in machines:
            self._renew(machine)

    def _renew(self, machine: str) -> None:
        old = self._entries.pop(machine, None)
        host = self._scene.hosts[machine]
        if old is not None:
            self.sizes[self.zone(host)] -= 1
        row = self._suitable.rows.get(machine)
        if row is None:
            return
        for entry in self._judged((row,)):
            zone = self.zone(host)
            self._entries[machine] = entry
            self.sizes[zone] = self.sizes.get(zone, 0) + 1
            heap = self.heaps.setdefault(zone, [])
            if heap and heap[0] is old:
                heapq.heapreplace(heap, entry)
            else:
                heapq.heappush(heap, entry)

    def best_two(self, excluded: Collection[str], siblings: Mapping[str, int]) -> list[Score]:
        """Return the best score and the next, as far as there are, without hosts that are `excluded`."""
        zones: Iterable[str] = self.heaps
        if siblings:
            zones = sorted(self.heaps, key=lambda zone: siblings.get(zone, 0))
        found: list[tuple[int, Entry]] = []
        for zone in zones:
            count = siblings.get(zone, 0)
            if len(found) >= 2 and count > found[1][0]:
                break
            found = sorted((*found, *((count, entry) for entry in self._top(self.heaps[zone], excluded))))[:2]
        return [Score(count, *entry) for count, entry in found]

    def _top(self, heap: list[Entry], excluded: Collection[str]) -> list[Entry]:
        first = [
            entry for entry in heap[:3] if self._entries.get(entry[-1]) is entry and entry[-1] not in excluded
        ]
        if len(first) == len(heap[:3]):
            return sorted(first)[:2]  # of a heap the second is one of the next two
        found: list[Entry] = []
        passed: list[Entry] = []
        while heap and len(found) < 2:
            entry = heapq.heappop(heap)
            if self._entries.get(entry[-1]) is entry:  # what stands here twice, or no more, is left behind
                (passed if entry[-1] in excluded else found).append(entry)
        for entry in (*found, *passed):
            heapq.heappush(heap, entry)
        return found

    def _judged(self, rows: Collection[Row]) -> list[Entry]:
        """Return the scores, as `scores_of` has them, of those hosts that take the unit, as `fits` says it."""
        unit, image, named = self._like, self._image, self._named
        cpu, memory, disk, egress, ingress = millis(unit.cpu), unit.memory, unit.disk, unit.egress, unit.ingress
        cpu_load, memory_load = cpu_weight(unit), memory_weight(unit)
        ports, wishes, rated = unit.host_ports, unit.prefer or unit.avoid, disk or egress or ingress
        if not (named or ports or wishes or rated or self._scene.rated or self._suitable.unmeasured):
            return [
                (
                    0,
                    share if (share := (host.cpu_load + cpu_load) / has_cpu) >= other else other,
                    len(host.units),
                    bool(image) and image not in host.images,
                    host.id,
                )
                for host, has_cpu, has_memory, _, _, _ in rows
                if (not cpu or cpu <= has_cpu - host.cpu_millis)
                and (not memory or memory <= has_memory - host.memory_reserved)
                and (other := (host.memory_load + memory_load) / has_memory) >= 0
            ]
        found = []
        for row in rows:
            host, has_cpu, has_memory, has_disk, has_egress, has_ingress = row
            if (
                (cpu and cpu > has_cpu - host.cpu_millis)
                or (memory and memory > has_memory - host.memory_reserved)
                or (
                    rated
                    and (
                        (disk and disk > has_disk - host.disk_reserved)
                        or (egress and egress > has_egress - host.egress_reserved)
                        or (ingress and ingress > has_ingress - host.ingress_reserved)
                    )
                )
                or (named and any(host.id in counts for counts in named))
                or (ports and any(port in host.taken for port in ports))
            ):
                continue
            if has_cpu and has_memory:
                share = max((host.cpu_load + cpu_load) / has_cpu, (host.memory_load + memory_load) / has_memory)
                if has_disk and (host.disk_reserved or disk):
                    share = max(share, (host.disk_reserved + disk) / has_disk)
                if has_egress and (host.egress_reserved or egress):
                    share = max(share, (host.egress_reserved + egress) / has_egress)
                if has_ingress and (host.ingress_reserved or ingress):
                    share = max(share, (host.ingress_reserved + ingress) / has_ingress)
            else:
                share = math.inf
            unmet = self._unmet(host) if wishes else 0
            pulls = bool(image) and image not in host.images
            found.append((unmet, share, len(host.units), pulls, host.id))
        return found

    def _unmet(self, host: Host) -> int:
        if len(self._avoided) > 1:
            return unmet_wishes(self._like, host)
        lacking = sum(host.metadata.get(key) not in values for key, values in self._like.prefer)
        return lacking + sum(counts.get(host.id, 0) for counts in self._avoided)


class Rankings:
    """The rankings of one scene, one a class, and the hosts that classes may share."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._rankings: dict[tuple[object, ...], Ranking] = {}  # the longest not asked for first
        self._suitable: dict[Requirements, Suitable] = {}
        self._last: tuple[tuple[object, ...], Ranking] | None = None
        self._seen = -1
        self._warming = False

    def of(self, unit: Requirements) -> Ranking:
        """Return the ranking of the unit's class, as things stand."""
        image = self._scene.pinned.get(unit.unit, unit.image)
        if self._seen != len(self._scene.altered):
            self._seen = len(self._scene.altered)
            self._warming = any(host.warming for host in self._scene.hosts.values())
        asks = (
            unit.drivers,
            unit.metadata,
            unit.metadata_not,
            unit.strict,
            unit.demands,
            unit.secrets,
            self._warming,
            image,
            unit.conflicts,
            unit.avoid,
            unit.prefer,
            unit.host_ports,
            unit.cpu,
            unit.memory,
            unit.disk,
            unit.egress,
            unit.ingress,
            unit.spread if unit.spread and group_of(unit.unit) else "",
        )
        if self._last is not None and self._last[0] == asks:
            ranking = self._last[1]  # no need to hash it all
        else:
            known = self._rankings.pop(asks, None)
            ranking = known or Ranking(unit, image, self._scene, self._suitable_for(unit, image))
            while (len(self._rankings) + 1) * len(self._scene.hosts) > MOST_JUDGED and self._rankings:
                del self._rankings[next(iter(self._rankings))]
            self._rankings[asks] = ranking
            self._last = asks, ranking
        ranking.keep_up()
        return ranking

    def _suitable_for(self, unit: Requirements, image: str) -> Suitable:
        """Return the hosts that rules about hosts themselves allow; only while one warms the image matters."""
        like = Requirements(
            unit="",
            drivers=unit.drivers,
            metadata=unit.metadata,
            metadata_not=unit.metadata_not,
            strict=unit.strict,
            demands=unit.demands,
            secrets=unit.secrets,
            image=image if self._warming else "",
        )
        suitable = self._suitable.get(like)
        if suitable is None:
            suitable = self._suitable[like] = Suitable(like, self._scene)
        return suitable


def choose(unit: Requirements, scene: Scene, *, but: Collection[str] = ()) -> Placed | Refused:
    """Find the best host for `unit`, as `place` does; `scores` are those of the best two hosts alone."""
    name = unit.unit
    if unit.machine_of or unit.machine_id:
        return _bound(unit, scene, but)
    if (name in scene.pinned and not unit.image) or scene.neighbours.is_replaced(name):
        return place(unit, scene, but=but)
    if scene.rankings is None:
        scene.rankings = Rankings(scene)
    ranking = scene.rankings.of(unit)
    own = scene.seats.get(name, ())
    excluded = {*but, *own, *scene.neighbours.wary_of(unit)}
    if unit.container_name:
        excluded.update(scene.neighbours.called(unit.container_name))
    old = [
        host
        for host in (scene.hosts[machine] for machine in own if machine not in but)
        if fits(unit, host, scene) is None
    ]
    fitting = len(ranking) + len(old) - sum(machine in ranking for machine in excluded)
    if not fitting:
        if excluded:
            return place(unit, scene, but=but)
        if ranking.refused is None:
            decided = place(unit, scene)  # which tells why, to every unit of the class
            ranking.refused = decided if isinstance(decided, Refused) else None
            return decided
        return ranking.refused
    siblings = _siblings(unit, scene)
    scores = ranking.best_two(excluded, siblings)
    if old:
        scores = sorted((*scores, *scores_of(unit, old, scene)))[:2]
    most = scores[0].siblings
    if siblings:
        most = max(most, _most_siblings(ranking, excluded, siblings, scene), *(score.siblings for score in scores))
    considered = (
        len(scene.hosts) - sum(machine in scene.hosts for machine in set(but)) if but else len(scene.hosts)
    )
    reason = reason_of(unit, scores, most, fitting, considered)
    return Placed(scores[0].machine, reason, tuple(scores))


def _bound(unit: Requirements, scene: Scene, but: Collection[str]) -> Placed | Refused:
    """Find the host of a unit that names it, or a unit there: no other has to be asked."""
    if unit.machine_of:
        places = {scene.place.get(peer) for peer in unit.machine_of}
        hosts = [scene.hosts[machine] for machine in places if machine in scene.hosts] if len(places) == 1 else []
    else:
        hosts = [host for host in scene.hosts.values() if is_pinned_to(unit, host)]
    hosts = [host for host in hosts if host.id not in but and fits(unit, host, scene) is None]
    if not hosts:
        return place(unit, scene, but=but)
    scores = scores_of(unit, hosts, scene)
    considered = len(scene.hosts) - sum(machine in scene.hosts for machine in set(but))
    return Placed(
        scores[0].machine, reason_of(unit, scores, scores[-1].siblings, len(scores), considered), scores[:2]
    )


def _siblings(unit: Requirements, scene: Scene) -> Mapping[str, int]:
    """Return how many siblings there are over each value of the Spread= key, the unit itself left out."""
    group = group_of(unit.unit) if unit.spread else ""
    if not group:
        return {}
    counts: Counts = scene.tally(group, unit.spread)
    own = scene.hosts.get(scene.place.get(unit.unit, ""))
    if own is not None and own.status is not MachineStatus.LOST:
        counts = dict(counts)
        counts[own.metadata.get(unit.spread, "")] -= 1
    return counts


def _most_siblings(ranking: Ranking, excluded: Collection[str], siblings: Mapping[str, int], scene: Scene) -> int:
    """Return the most siblings over a value of which some host takes the unit."""
    sizes = dict(ranking.sizes)
    for machine in excluded:
        if machine in ranking:
            sizes[ranking.zone(scene.hosts[machine])] -= 1
    return max((siblings.get(zone, 0) for zone, size in sizes.items() if size), default=0)
