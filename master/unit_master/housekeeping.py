"""What the leader clears away: texts and pins nothing points to, old events, old history, old revisions.

`garbage` is pure; every deletion compares that the key is as it was seen, so that a text that is submitted
again at this moment stays.
"""

from __future__ import annotations

from collections.abc import Iterator

from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.store import Compare, Delete, unchanged

EVENTS_KEPT_S = 24 * 3600.0
EVENTS_KEPT = 10_000
HISTORY_KEPT_S = 24 * 3600.0  # after the unit was destroyed
STAYS_KEPT = 20  # a unit
REVISIONS_KEPT_S = 3600.0
COMPACT_EVERY_S = 300.0

BATCH = 60


def garbage(view: ClusterView, now: float) -> Iterator[str]:
    """Yield the keys that nothing needs any more."""
    pointed = {entry.value.spec for entry in view.units.values()}
    for placements in view.placements.values():
        pointed.update(entry.value.spec for entry in placements.values())
    for digest in view.texts:
        if digest not in pointed:
            yield keys.spec(digest)
    for digest in view.pins:
        if digest not in pointed:
            yield keys.pin(digest)
    yield from (keys.warm_set(machine) for machine in view.warm_sets if machine not in view.roster)
    yield from _old_events(view, now)
    for unit, stays in view.stays.items():
        newest = max(stays)
        if unit not in view.units and now - stays[newest].value.at > HISTORY_KEPT_S:
            yield from (keys.stay(unit, epoch) for epoch in sorted(stays))
        else:
            yield from (keys.stay(unit, epoch) for epoch in sorted(stays)[:-STAYS_KEPT])


def _old_events(view: ClusterView, now: float) -> Iterator[str]:
    ordered = sorted(view.events, key=lambda key: view.events[key].revision)
    for position, key in enumerate(ordered):
        if len(ordered) - position > EVENTS_KEPT or now - view.events[key].value.at > EVENTS_KEPT_S:
            yield key


def deletions(view: ClusterView, doomed: list[str]) -> tuple[list[Compare], list[Delete]]:
    """Return a guarded deletion of `doomed`, each key as the view saw it."""
    return [unchanged(key, view.revisions[key]) for key in doomed], [Delete(key) for key in doomed]


class Revisions:
    """Remembers which revision stood when, to tell how far the store may be compacted."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def note(self, at: float, revision: int) -> int:
        """Note the present revision and return the newest one that is older than an hour, 0 if none is known."""
        self._seen.append((at, revision))
        old = [seen for seen in self._seen if at - seen[0] >= REVISIONS_KEPT_S]
        self._seen = [seen for seen in self._seen if at - seen[0] < REVISIONS_KEPT_S]
        return old[-1][1] if old else 0
