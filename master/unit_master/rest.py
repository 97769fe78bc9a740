"""Which units plainly are as they should be, so that nobody has to plan for them: most are, at any time. Pure.

It may miss one that is at rest, which is then planned for and found so; it never takes one for it that is not
(tests/property/test_rest.py).
"""

from __future__ import annotations

from unit_master.rules import missing_metadata, pin_allows, unwanted_metadata
from unit_master.scene import Scene
from unit_master.view import ClusterView
from unitfleet.model import CopyPhase, MachineStatus, TargetState, Wanted


def is_at_rest(view: ClusterView, scene: Scene, name: str) -> bool:
    """Say whether the unit runs once, as wanted, on a machine that suits it, and nothing else is known of it."""
    entry, placements, states = view.units.get(name), view.placements.get(name), view.states.get(name)
    if entry is None or placements is None or states is None or len(placements) != 1 or len(states) != 1:
        return False
    [(machine, placed)] = placements.items()
    told = states.get(machine)
    if told is None or name in view.pending or name in scene.promised:
        return False
    unit, held, state = entry.value, placed.value, told.value
    if (
        unit.target is not TargetState.LAUNCHED
        or held.wanted is not Wanted.LAUNCHED
        or held.spec != unit.spec
        or held.incarnation != unit.incarnation
        or held.restart < unit.restart
        or held.bandwidth != unit.bandwidth
        or state.phase is not CopyPhase.RUNNING
        or state.epoch != held.epoch
        or (state.image and state.spec not in view.pins)
    ):
        return False
    host = scene.hosts.get(machine)
    if host is None or host.status is not MachineStatus.READY or host.drained or host.replacing:
        return False
    needs = host.units.get(name)
    if needs is None or not needs.drivers or needs.is_global or needs.machine_of:
        return False
    return not (
        (host.wary and scene.neighbours.at_odds(needs, machine))
        or (needs.machine_id and pin_allows(needs, host, scene))
        or (needs.metadata and missing_metadata(needs, host))
        or (needs.metadata_not and unwanted_metadata(needs, host))
    )
