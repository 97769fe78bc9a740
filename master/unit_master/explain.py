"""Why a unit is where it is, or nowhere: the scheduler's own code asked again on the present view."""

from __future__ import annotations

from unit_master.scene import Scene, scene_of
from unit_master.scheduler import Refused, fits, in_words, place, scores_of
from unit_master.view import ClusterView
from unitfleet.api import Explanation, RuleVerdict
from unitfleet.bandwidth import asked
from unitfleet.model import Placement, Requirements, TargetState, Unit, Wanted
from unitfleet.names import split


def explain(view: ClusterView, name: str) -> Explanation | None:
    """Return what each machine says of the unit: its places first, then the best, then those that refuse.

    None when nobody knows the unit. The `unit` of the answer is left for the caller to add.
    """
    entry = view.units.get(name)
    if entry is None:
        return None
    unit = entry.value
    spec = view.spec(unit.name, unit.spec)
    if spec is None:
        why = view.unreadable(unit.name, unit.spec)
        return Explanation(name=name, rev=view.revision, summary=f"cannot read its unit file: {why}", machines=())
    scene = scene_of(view)
    places = _places(view, name)
    needs = asked(spec.requirements, unit.bandwidth)
    summary, hint = _summary(view, unit, needs, scene, places)
    chosen = {placement.machine for placement in places}
    machines = _verdicts(needs, scene, chosen)
    return Explanation(name=name, rev=view.revision, summary=summary, machines=machines, hint=hint)


def _places(view: ClusterView, name: str) -> list[Placement]:
    """Return the live placements that count: the newest, or all of a Global unit's; newest first."""
    live = [entry.value for entry in view.placements_of(name).values() if entry.value.wanted is not Wanted.GONE]
    live.sort(key=lambda placement: -placement.epoch)
    spec = view.spec(name, view.units[name].value.spec)
    return live if spec is not None and spec.requirements.is_global else live[:1]


def _verdicts(unit: Requirements, scene: Scene, chosen: set[str]) -> tuple[RuleVerdict, ...]:
    refusals = {machine: fits(unit, host, scene) for machine, host in scene.hosts.items()}
    scores = {
        score.machine: (rank, in_words(score, unit, scene))
        for rank, score in enumerate(
            scores_of(unit, [host for host in scene.hosts.values() if refusals[host.id] is None], scene)
        )
    }

    def order(machine: str) -> tuple[bool, int, str, str]:
        rank = scores[machine][0] if machine in scores else len(scores)
        return machine not in chosen, rank, scene.hosts[machine].name, machine

    verdicts = []
    for machine in sorted(scene.hosts, key=order):
        refusal = refusals[machine]
        verdicts.append(
            RuleVerdict(
                machine=machine,
                machine_name=scene.hosts[machine].name,
                refused_by=refusal.rule if refusal else "",
                why=refusal.why if refusal else "",
                score=scores[machine][1] if machine in scores else (),
                chosen=machine in chosen,
            )
        )
    return tuple(verdicts)


def _summary(
    view: ClusterView, unit: Unit, needs: Requirements, scene: Scene, places: list[Placement]
) -> tuple[str, str]:
    """Return one sentence and the nearest fix, "" when there is nothing to fix."""
    pending = view.pending.get(unit.name)
    if places:
        names = ", ".join(sorted(view.machine_name(placement.machine) for placement in places))
        said = f"; {pending.value.message}" if pending else ""
        return f"placed on {names}: {places[0].reason}{said}", pending.value.hint if pending else ""
    if split(unit.name).is_template:
        return "a template is not placed itself: start an instance of it", ""
    if unit.target in (TargetState.INACTIVE, TargetState.DESTROYED):
        leaving = sorted(view.machine_name(machine) for machine in view.placements_of(unit.name))
        still = f", still leaving {', '.join(leaving)}" if leaving else ""
        return f"its target state is {unit.target}{still}", ""
    if pending is not None and pending.value.message.startswith(("evicted ", "waits ")):
        return pending.value.message, pending.value.hint  # what no rule can tell
    decided = place(needs, scene)
    if isinstance(decided, Refused):
        return decided.message, decided.hint
    if pending is not None:
        return pending.value.message, pending.value.hint
    return f"about to be placed on {view.machine_name(decided.machine)}: {decided.reason}", ""
