"""The first placement of units of which nothing but the wish is known yet: most of a fleet when it begins. Pure.

It is what a whole plan would come to, at less than half its price (tests/property/test_rest.py).
"""

from __future__ import annotations

from unit_master.actions import Place
from unit_master.ranking import choose
from unit_master.scene import Scene
from unit_master.scheduler import Placed
from unit_master.view import ClusterView
from unitfleet.bandwidth import asked
from unitfleet.model import TargetState, Wanted

_WANTED = {TargetState.LAUNCHED: Wanted.LAUNCHED, TargetState.LOADED: Wanted.LOADED}


def first_place(view: ClusterView, scene: Scene, name: str) -> Place | None:
    """Return the placement of a new unit, drafted; None for any other, and for one that fits nowhere."""
    entry = view.units.get(name)
    wanted = _WANTED.get(entry.value.target) if entry is not None else None
    if entry is None or wanted is None or view.bad or name in view.pending or name in scene.promised:
        return None
    if name in view.placements or name in view.states:
        return None
    spec = view.spec(name, entry.value.spec)
    if spec is None or spec.requirements.is_global:
        return None
    needs = asked(spec.requirements, entry.value.bandwidth)
    decided = choose(needs, scene)
    if not isinstance(decided, Placed):
        return None
    scene.settle(needs, decided.machine)
    return Place(name, decided.machine, wanted, decided.reason)
