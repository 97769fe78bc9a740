"""The best host for the next of many units that ask the same, at the cost of what changed since the last one.

`choose` answers as `scheduler.place` would, but for the scores, of which it has the best two alone. Units fall
into classes of those that ask the same. The scene keeps a ranking of hosts for each class, in which a host is
judged anew when something was placed there or left. What concerns one name alone is left out and looked up
for that unit: its own old places, whose Conflicts= name it, its container's name.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping
from itertools import compress

import msgspec

from unit_master.columns import Columns
from unit_master.neighbours import Counts
from unit_master.rules import is_pinned_to, unmet_wishes
from unit_master.scene import Host, Scene, cpu_weight, group_of, memory_weight, millis
from unit_master.scheduler import Placed, Refused, Score, fits, place, reason_of, scores_of
from unit_master.suitable import Suitable
from unitfleet.model import MachineStatus, Requirements

MOST_JUDGED = 100_000
"""Hosts in all rankings together: those that were not asked for longest are dropped."""

_NONE: frozenset[int] = frozenset()

Entry = tuple[int, float, int, bool, int]
"""A score but for the siblings: wishes that are not met, share, units, whether it pulls, the host's number."""


class Ranking:
    """The hosts that take a unit of this class, the best first; by their value of its Spread= key."""

    def __init__(self, unit: Requirements, image: str, scene: Scene, columns: Columns, suitable: Suitable) -> None:
        self._like = msgspec.structs.replace(unit, unit="")
        self._image = image
        self._spread = unit.spread if group_of(unit.unit) else ""
        self._scene = scene
        self._columns = columns
        self._suitable = suitable
        self._named = [scene.neighbours.named(pattern) for pattern in unit.conflicts]
        self._avoided = [scene.neighbours.named(pattern) for pattern in unit.avoid]
        self._lacking = self._wishes_not_met()
        self._cpu, self._memory = millis(unit.cpu), unit.memory
        self._cpu_load, self._memory_load = cpu_weight(unit), memory_weight(unit)
        self._looks_at_hosts = bool(unit.host_ports or unit.disk or unit.egress or unit.ingress)
        self._looks = self._looks_at_hosts or bool(image or unit.conflicts)
        self.refused: Refused | None = None
        self._build()

    def _build(self) -> None:
        self._suitable.keep_up()
        self._seen = len(self._scene.touched)
        self.heaps: dict[str, list[Entry]] = {}
        self.sizes: dict[str, int] = {}
        found = self._judged()
        self._entries = {entry[-1]: entry for entry in found}
        if self._spread:
            for entry in found:
                self.heaps.setdefault(self._zone(entry[-1]), []).append(entry)
        elif found:
            self.heaps[""] = found
        for zone, heap in self.heaps.items():
            heapq.heapify(heap)
            self.sizes[zone] = len(heap)

    def _wishes_not_met(self) -> list[int]:
        """Return by number how many wishes for metadata (Prefer=) are not met; nothing when there are none."""
        wishes = self._like.prefer
        return [
            sum(host.metadata.get(key) not in values for key, values in wishes)
            for host in (self._columns.hosts if wishes else ())
        ]

    def _has_to_look(self) -> bool:
        """Whether columns do not tell all that the hosts are judged by."""
        return self._looks_at_hosts or bool(
            self._scene.rated or self._suitable.unmeasured or (self._avoided and any(self._avoided))
        )

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, machine: str) -> bool:
        return self._columns.number.get(machine) in self._entries

    def zone(self, machine: str) -> str:
        """Return a host's value of the Spread= key, "" where nothing is spread."""
        return self._scene.hosts[machine].metadata.get(self._spread, "") if self._spread else ""

    def _zone(self, number: int) -> str:
        return self._columns.hosts[number].metadata.get(self._spread, "") if self._spread else ""

    def keep_up(self) -> None:
        """Judge the hosts anew that the scene has touched since the last time."""
        self._suitable.keep_up()
        touched = self._scene.touched
        if self._seen == len(touched):
            return
        self.refused = None
        machines = touched[self._seen :] if len(touched) - self._seen < 2 else set(touched[self._seen :])
        if len(machines) * 4 > len(self._columns.hosts) > 8:
            self._build()  # costs less
            return
        self._seen = len(touched)
        for machine in machines:
            self._renew(self._columns.number[machine])

    def _renew(self, number: int) -> None:
        old = self._entries.pop(number, None)
        zone = self._zone(number)
        if old is not None:
            self.sizes[zone] -= 1
        entry = self._judge(number) if self._suitable.takes[number] else None
        if entry is not None:
            self._entries[number] = entry
            self.sizes[zone] = self.sizes.get(zone, 0) + 1
            heap = self.heaps.get(zone)
            if heap is None:
                heap = self.heaps[zone] = []
            if heap and heap[0] is old:
                heapq.heapreplace(heap, entry)
            else:
                heapq.heappush(heap, entry)

    def best_two(self, excluded: Collection[str], siblings: Mapping[str, int]) -> list[Score]:
        """Return the best score and the next, as far as there are, without hosts that are `excluded`."""
        numbers = {self._columns.number.get(machine, -1) for machine in excluded} if excluded else _NONE
        machines = self._columns.machines
        if not self._spread:
            top = self._top(self.heaps.get("", []), numbers)
            return [Score(0, *entry[:-1], machines[entry[-1]]) for entry in top]
        zones = sorted(self.heaps, key=lambda zone: siblings.get(zone, 0))
        found: list[tuple[int, Entry]] = []
        for zone in zones:
            count = siblings.get(zone, 0)
            if len(found) >= 2 and count > found[1][0]:
                break
            found = sorted((*found, *((count, entry) for entry in self._top(self.heaps[zone], numbers))))[:2]
        return [Score(count, *entry[:-1], machines[entry[-1]]) for count, entry in found]

    def _top(self, heap: list[Entry], excluded: Collection[int]) -> list[Entry]:
        known = self._entries
        if len(heap) > 2:
            best, one, other = heap[0], heap[1], heap[2]
            if (
                known.get(best[-1]) is best
                and known.get(one[-1]) is one
                and known.get(other[-1]) is other
                and not (excluded and (best[-1] in excluded or one[-1] in excluded or other[-1] in excluded))
            ):
                return [best, one if one < other else other]  # of a heap the second is one of the next two
        found: list[Entry] = []
        passed: list[Entry] = []
        while heap and len(found) < 2:
            entry = heapq.heappop(heap)
            if known.get(entry[-1]) is entry:  # what stands here twice, or no more, is left behind
                (passed if entry[-1] in excluded else found).append(entry)
        for entry in (*found, *passed):
            heapq.heappush(heap, entry)
        return found

    def _judged(self) -> list[Entry]:
        """Return the scores, as `scores_of` has them, of those hosts that take the unit, as `fits` says it."""
        hosts, takes, image = self._columns, self._suitable.takes, self._image
        if self._has_to_look():
            judged = (self._judge_closely(number) for number in range(len(takes)) if takes[number])
            return [entry for entry in judged if entry is not None]
        cpu_load, memory_load = self._cpu_load, self._memory_load
        lacking = self._lacking
        taken = {hosts.number[machine] for counts in self._named for machine in counts}
        rows = zip(
            range(len(takes)),
            hosts.cpu,
            hosts.memory,
            hosts.cpu_load,
            hosts.memory_load,
            hosts.units,
            strict=True,
        )
        found = [
            (lacking[number] if lacking else 0, share, units, False, number)
            for number, has_cpu, has_memory, loaded, filled, units in compress(rows, takes)
            if (
                (share := (loaded + cpu_load) / has_cpu) >= (other := (filled + memory_load) / has_memory)
                or (share := other)
            )
            # what is requested is never more than what weighs
            and (share <= 1 or self._has_room(number))
            and not (taken and number in taken)
        ]
        if image:
            return [(*entry[:3], image not in hosts.images[entry[-1]], entry[-1]) for entry in found]
        return found

    def _has_room(self, number: int) -> bool:
        """Whether the host has left what the unit requests of cpu and memory."""
        hosts = self._columns
        return (not self._cpu or self._cpu <= hosts.cpu[number] - hosts.cpu_millis[number]) and (
            not self._memory or self._memory <= hosts.memory[number] - hosts.memory_reserved[number]
        )

    def _judge(self, number: int) -> Entry | None:
        """Do for one host what `_judged` does for all."""
        if self._looks or self._scene.rated or self._suitable.unmeasured or (self._avoided and any(self._avoided)):
            return self._judge_closely(number)
        hosts = self._columns
        share = (hosts.cpu_load[number] + self._cpu_load) / hosts.cpu[number]
        other = (hosts.memory_load[number] + self._memory_load) / hosts.memory[number]
        share = share if share >= other else other
        if share > 1 and not self._has_room(number):
            return None
        lacking = self._lacking[number] if self._lacking else 0
        return lacking, share, hosts.units[number], False, number

    def _judge_closely(self, number: int) -> Entry | None:
        """Do it for a host of which more than cpu and memory is asked, or not all is known."""
        unit, host, image = self._like, self._columns.hosts[number], self._image
        if any(host.id in counts for counts in self._named) or any(port in host.taken for port in unit.host_ports):
            return None
        has = host.capacity
        has_cpu, has_memory = millis(has.cpu) if has.cpu else 0, has.memory
        disk, egress, ingress = unit.disk, unit.egress, unit.ingress
        if (
            (self._cpu and self._cpu > has_cpu - host.cpu_millis)
            or (self._memory and self._memory > has_memory - host.memory_reserved)
            or (disk and disk > has.disk - host.disk_reserved)
            or (egress and egress > has.egress - host.egress_reserved)
            or (ingress and ingress > has.ingress - host.ingress_reserved)
        ):
            return None
        share = math.inf
        if has_cpu and has_memory:
            share = max(
                (host.cpu_load + self._cpu_load) / has_cpu, (host.memory_load + self._memory_load) / has_memory
            )
            if has.disk and (host.disk_reserved or disk):
                share = max(share, (host.disk_reserved + disk) / has.disk)
            if has.egress and (host.egress_reserved or egress):
                share = max(share, (host.egress_reserved + egress) / has.egress)
            if has.ingress and (host.ingress_reserved or ingress):
                share = max(share, (host.ingress_reserved + ingress) / has.ingress)
        unmet = self._unmet(host, number) if unit.prefer or unit.avoid else 0
        return unmet, share, len(host.units), bool(image) and image not in host.images, number

    def _unmet(self, host: Host, number: int) -> int:
        if len(self._avoided) > 1:
            return unmet_wishes(self._like, host)  # a unit that two patterns name counts once
        return (self._lacking[number] if self._lacking else 0) + sum(
            counts.get(host.id, 0) for counts in self._avoided
        )


class Rankings:
    """The rankings of one scene, one a class, and the hosts that classes may share."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._columns = Columns(scene)
        self._rankings: dict[tuple[object, ...], Ranking] = {}  # the longest not asked for first
        self._suitable: dict[Requirements, Suitable] = {}
        self._last: tuple[tuple[object, ...], Ranking] | None = None
        self._seen = -1
        self._warming = False

    def of(self, unit: Requirements) -> Ranking:
        """Return the ranking of the unit's class, as things stand."""
        self._columns.keep_up()
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
            ranking = (
                known
                if known is not None
                else Ranking(unit, image, self._scene, self._columns, self._suitable_for(unit, image))
            )
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
            suitable = self._suitable[like] = Suitable(like, self._scene, self._columns)
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
    excluded: Collection[str] = scene.neighbours.shunned_by(unit)
    old: list[Host] = []
    fitting = len(ranking)
    if but or own or excluded:
        excluded = {*but, *own, *excluded}
        old = [scene.hosts[machine] for machine in own if machine not in but]
        old = [host for host in old if fits(unit, host, scene) is None]
        fitting += len(old) - sum(machine in ranking for machine in excluded)
    if not fitting:
        if excluded:
            return place(unit, scene, but=but)
        if ranking.refused is None:
            decided = place(unit, scene)  # which tells why, to every unit of the class
            ranking.refused = decided if isinstance(decided, Refused) else None
            return decided
        return ranking.refused
    siblings = _siblings(unit, scene)
    at_its_own = scores_of(unit, old, scene) if old else ()
    scores = sorted((*ranking.best_two(excluded, siblings), *at_its_own))[:2]
    most = scores[0].siblings
    if siblings:
        others = _most_siblings(ranking, excluded, siblings, scene)
        most = max(most, others, *(score.siblings for score in at_its_own))
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
            sizes[ranking.zone(machine)] -= 1
    return max((siblings.get(zone, 0) for zone, size in sizes.items() if size), default=0)
