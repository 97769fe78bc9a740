"""How often the kernel ended processes of a copy for want of memory, over the copy's restarts.

A group counts its kills and goes with the container. When the kill took the first process, the count was often
never read: then the copy's cause of its end stands for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unit_agent.driver import Copy
from unitfleet.api import UnitFigures
from unitfleet.model import Cause


class OomKills:
    """Holds, for each unit, the kills of groups that are gone, and what the present group was last seen with."""

    def __init__(self) -> None:
        self._ended: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def note(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Note that a copy changed: another process means another group."""
        if before is None or not before.pid or (after is not None and after.pid == before.pid):
            return
        if after is None or after.id != before.id:
            self._ended.pop(unit, None)
            self._last.pop(unit, None)
            return
        ended = self._ended.get(unit, 0)
        now = max(self._last.pop(unit, 0), ended + (after.cause is Cause.OOM))
        if now:
            self._ended[unit] = now

    def ended(self) -> Mapping[str, int]:
        """Return the kills of groups that are gone, by unit."""
        return dict(self._ended)

    def saw(self, figures: Iterable[UnitFigures]) -> None:
        """Note the totals of a sample."""
        for each in figures:
            if each.oom_kills:
                self._last[each.unit] = each.oom_kills

    def keep(self, units: Iterable[str]) -> None:
        """Forget all other units."""
        known = set(units)
        for held in (self._ended, self._last):
            for unit in held.keys() - known:
                del held[unit]
