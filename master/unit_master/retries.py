"""A unit that failed where it is, for good: whether another machine is to try it, and which. Pure.

What failed again and again on one host may do well on the next: a broken disk, an image that can't be had there,
a neighbour that eats the memory. At most `MOST_HOSTS` machines try one text, incarnation and restart number; then
the unit stays failed and names them. The memory is `Placement.tried`: it stands in the store with the order, so
every leader knows it; and a user's `start`, `restart` or new text, which write another order, begin anew.
"""

from __future__ import annotations

from unit_master.ranking import choose
from unit_master.scene import Scene
from unit_master.scheduler import Placed
from unitfleet.model import CopyPhase, MachineStatus, OnLoss, Placement, Requirements, UnitState, Wanted

MOST_HOSTS = 3
LONGEST_WHY = 200  # characters of a failure in the reason of the next placement


def tried(held: Placement) -> tuple[str, ...]:
    """Return the machines that have tried it, its present one included, the first one first."""
    return (*(machine for machine in held.tried if machine != held.machine), held.machine)


def keeps_failing(needs: Requirements, held: Placement, state: UnitState | None) -> bool:
    """Whether a unit has failed at its place in a way that another machine may mend, and may leave it.

    `state` is what its agent told of this very order, None when it told nothing yet.

    It never came to run there (its image, its container), or was restarted in vain. A single bad end with
    `Restart=no` is its own answer, and so is a oneshot's, which may have done half of its work. A unit that is
    bound to its machine (MachineID=, MachineOf=, Global=, OnMachineLoss=wait: its data is there) stays, and a
    strict one does: of two copies nobody may be in doubt.
    """
    if state is None or state.phase is not CopyPhase.FAILED or held.wanted is not Wanted.LAUNCHED:
        return False
    if needs.strict or needs.is_global or needs.machine_id or needs.machine_of or needs.on_loss is OnLoss.WAIT:
        return False
    never_ran = not state.copy_id
    return never_ran or (state.restarts > 0 and not needs.oneshot)


def elsewhere(needs: Requirements, held: Placement, state: UnitState | None, scene: Scene) -> Placed | None:
    """Return the machine that is to try it next, or None: it stays where it failed."""
    machines = tried(held)
    host = scene.hosts.get(held.machine)
    if len(machines) >= MOST_HOSTS or host is None or host.status is not MachineStatus.READY:
        return None
    if not keeps_failing(needs, held, state):
        return None
    decided = choose(needs, scene, but=machines)
    return decided if isinstance(decided, Placed) else None


def in_words(machine_name: str, state: UnitState | None) -> str:
    """Return why it goes on, for the next placement's reason."""
    why = state.message if state is not None else ""
    return f"failed on {machine_name}" + (f": {why[:LONGEST_WHY]}" if why else "")
