"""Which units the leader has to look at next, and the scene it decides on: kept up with what changed.

A change opens the units it concerns: its own; for a machine those that have to do with it or failed elsewhere; and
where a placement, a unit, a machine or a capacity changed, those that wait for room and those whose place depends
on what others do. What concerns every unit, a pin or a secret, opens every unit and makes the scene anew, and so
does the time: what was overlooked heals by itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Set

from unit_master.reconcile import in_order, names_of
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
        self._measured: set[str] = set()  # machines likewise, by what they measured
        self._machines: set[str] = set()  # and those that came, went, or are another otherwise

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
                case (("machines" | "roster" | "machine-spec"), machine):
                    self._machines.add(machine)
                case (("pins" | "secrets"), _) | ("identities", _, _):
                    self._scene = None
                case _:
                    pass  # for people, for agents, or for the next time that every unit is opened

    def turn(self, view: ClusterView, at: float) -> tuple[Scene, list[str]]:
        """Return the scene as `view` has it, and the units to decide about now."""
        scene = self._scene
        if scene is None or at - self._whole_at >= WHOLE_EVERY_S or self._concerns_all(view, scene):
            scene = self._scene = scene_of(view)
            self._open = dict.fromkeys(in_order(view, names_of(view)))
            self._whole_at = self._looked_at = at
        elif self._moved or self._measured or self._machines or at - self._looked_at >= LOOK_EVERY_S:
            for machine in sorted(self._machines):
                scene.rehost(view, machine)
            for machine in self._measured:
                scene.remeasure(view, machine)
            for unit in sorted(self._moved):
                scene.reseat(view, unit)
            concerned = {*view.pending, *scene.entangled, *_concerned(view, self._machines)}
            self._open |= dict.fromkeys(in_order(view, concerned))
            self._looked_at = at
        self._moved, self._measured, self._machines = set(), set(), set()
        names = list(itertools.islice(self._open, MOST_UNITS))
        for name in names:
            del self._open[name]
        return scene, names

    def _concerns_all(self, view: ClusterView, scene: Scene) -> bool:
        """Whether others may have to leave for what moved, or a machine is gone for good."""
        if not self._moved.isdisjoint(scene.entangled):
            return True
        return any(machine in scene.hosts and machine not in view.roster for machine in self._machines)

    def decided(self, names: Iterable[str]) -> None:
        """Note that there was something to do about these: on the scene it is done, in the view not yet."""
        self._moved.update(names)
        self._open |= dict.fromkeys(names)


def _concerned(view: ClusterView, machines: Set[str]) -> Iterator[str]:
    """Yield the units that a change of these machines is a matter of: the failed may try one of them."""
    if not machines:
        return
    for machine in machines:
        yield from view.on_machine.get(machine, ())
    for unit, told in view.states.items():
        if not machines.isdisjoint(told) or any(e.value.phase is CopyPhase.FAILED for e in told.values()):
            yield unit
