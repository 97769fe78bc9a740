"""Which units the leader has to look at next, and the scene it decides on: kept up with what changed.

A change opens the units it concerns: its own; of a machine those that are there, and those that failed, which it
may try; those that follow a unit, and beside it those of which one names the other; and wherever something changed
those that wait for room, and the global ones. What concerns all, such as a secret, opens all and makes the scene
anew, and so does the time: what was overlooked heals by itself. Who plainly is at rest is left out then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from unit_master.actions import Evict, UnitAction
from unit_master.order import in_order, names_of
from unit_master.rest import is_at_rest
from unit_master.scene import Scene, scene_of
from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.model import CopyPhase

MOST_UNITS = 500
"""Looked at in one turn: a turn blocks everything else that this master does."""

WHOLE_EVERY_S = 30.0
"""Every unit is looked at so often, whatever changed."""

LOOK_EVERY_S = 5.0
"""Units that wait are looked at so often: some wait for a time."""


class Agenda:
    """What is open. Times are the running loop's."""

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self._whole_at = -math.inf  # when every unit was last opened
        self._looked_at = -math.inf  # when those that wait were
        self._open: dict[str, None] = {}  # the longest open first
        self._moved: set[str] = set()  # units that stand in the scene otherwise than in the view
        self._measured: set[str] = set()  # machines likewise, as to what was measured
        self._altered: set[str] = set()  # machines likewise, as to all that they are

    @property
    def is_done(self) -> bool:
        """Whether nothing is open, as far as was noted."""
        return not self._open

    def note(self, changed: Iterable[str] | None) -> None:
        """Open what the change of these keys concerns; None: whatever may have changed."""
        if changed is None:
            self._scene = None
            return
        for key in changed:
            match keys.split(key):
                case ("states", _, unit) | ("pending", unit):
                    self._open[unit] = None
                case ("placements", _, unit) | ("units", unit):
                    self._open[unit] = None
                    self._moved.add(unit)
                case (("resources" | "images"), machine):
                    self._measured.add(machine)
                case (("machines" | "roster" | "machine-spec"), machine) | ("identities", _, machine):
                    self._altered.add(machine)
                case (("pins" | "secrets"), _):
                    self._scene = None
                case _:
                    pass  # for people, for agents, or for the next time that every unit is opened

    def turn(self, view: ClusterView, at: float) -> tuple[Scene, list[str]]:
        """Return the scene as `view` has it, and the units to decide about now."""
        scene = self._scene
        concerned = None if scene is None or at - self._whole_at >= WHOLE_EVERY_S else self._take_up(scene, view)
        if scene is None or concerned is None:
            scene = self._scene = scene_of(view)
            stirred = (name for name in names_of(view) if not is_at_rest(view, scene, name))
            self._open = dict.fromkeys(in_order(view, stirred))
            self._whole_at = self._looked_at = at
        elif concerned or self._moved or self._measured or self._altered or at - self._looked_at >= LOOK_EVERY_S:
            self._open |= dict.fromkeys(in_order(view, concerned | view.pending.keys() | scene.everywhere))
            self._looked_at = at
        self._moved, self._measured, self._altered = set(), set(), set()
        names = list(itertools.islice(self._open, MOST_UNITS))
        for name in names:
            del self._open[name]
        return scene, names

    def _take_up(self, scene: Scene, view: ClusterView) -> set[str] | None:
        """Bring the scene up to date, and return whom that concerns besides; None: it has to be made anew."""
        concerned: set[str] = set()
        for machine in sorted(self._altered):
            there = scene.rehost(view, machine)
            if there is None:
                return None
            concerned |= there
        if self._altered:
            concerned |= _told_of(view, self._altered)
        for machine in self._measured:
            scene.remeasure(view, machine)
        for unit in sorted(self._moved):
            machines = set(scene.seats.get(unit, ()))
            names_others = unit in scene.entangled
            scene.reseat(view, unit)
            machines.update(scene.seats.get(unit, ()))
            names_others |= unit in scene.entangled
            concerned |= scene.followers.get(unit, set())
            for host in (scene.hosts[machine] for machine in machines):
                concerned |= host.units.keys() if names_others else host.wary | host.replacing
        return concerned

    def decided(self, names: Iterable[str], actions: Iterable[UnitAction]) -> None:
        """Note that there was something to do about these: on the scene it is done, in the view not yet."""
        concerned = [*names, *(action.unit for action in actions if isinstance(action, Evict))]
        self._moved.update(concerned)
        self._open |= dict.fromkeys(concerned)


def _told_of(view: ClusterView, machines: set[str]) -> set[str]:
    """Return the units of which one of the machines tells, and those that failed: another one may try them."""
    return {
        unit
        for unit, states in view.states.items()
        if not machines.isdisjoint(states) or any(told.value.phase is CopyPhase.FAILED for told in states.values())
    }
