"""Where a unit goes: filter the hosts by the rules, score those that are left, take the best.

Pure and deterministic: the same scene gives the same answer, whatever the order of its parts. Every "no" is a
value with its reason, which reaches the user.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unit_master import advice
from unit_master.rules import RULES, avoided, unmet_wishes
from unit_master.scene import Host, Scene, cpu_weight, group_of, memory_weight, millis
from unitfleet.model import Pending, Requirements, RuleCount


class Score(NamedTuple):
    """How well a host would do, the lowest is the best; compared part by part."""

    siblings: int  # instances of the same template over the host's value of the Spread= key
    unmet: int  # wishes (Prefer=, Avoid=) that are not met there
    share: float  # the most used of its resources after placing, 1.0 is all of it
    units: int  # other units there
    pulls: bool  # its image is not known to be there
    machine: str


@dataclass(frozen=True, slots=True)
class Placed:
    """The machine for a unit, and why; `scores` of every host that fits, best first."""

    machine: str
    reason: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first rule that refused a host, and why."""

    machine: str
    machine_name: str
    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No host takes the unit: each one's refusal (by machine id), all in a sentence, and the nearest fix."""

    considered: int
    refusals: tuple[Refusal, ...]
    message: str
    hint: str


def place(unit: Requirements, scene: Scene, *, but: Collection[str] = ()) -> Placed | Refused:
    """Find the best host for `unit`; those in `but` are not considered."""
    refusals: list[Refusal] = []
    fitting: list[Host] = []
    hosts = [scene.hosts[machine] for machine in sorted(scene.hosts) if machine not in but]
    for host in hosts:
        refusal = fits(unit, host, scene)
        if refusal is None:
            fitting.append(host)
        else:
            refusals.append(refusal)
    if not fitting:
        rules = [(host, refusal.rule) for host, refusal in zip(hosts, refusals, strict=True)]
        message = advice.summary(unit, rules, scene)
        return Refused(len(hosts), tuple(refusals), message, advice.nearest_fix(unit, hosts, scene))
    scores = scores_of(unit, fitting, scene)
    reason = reason_of(unit, scores, scores[-1].siblings, len(scores), len(hosts))
    return Placed(scores[0].machine, reason, scores)


def fits(unit: Requirements, host: Host, scene: Scene) -> Refusal | None:
    """Return the first rule that refuses the host, or None when it takes the unit."""
    for name, rule in RULES:
        why = rule(unit, host, scene)
        if why is not None:
            return Refusal(host.id, host.name, name, why)
    return None


def scores_of(unit: Requirements, hosts: Collection[Host], scene: Scene) -> tuple[Score, ...]:
    """Score the hosts, best first. The unit's own placement is left out of what a host holds."""
    image = scene.pinned.get(unit.unit, unit.image)
    over_value: dict[str, int] = {}
    if unit.spread:
        for machine, count in scene.siblings(unit.unit).items():
            value = scene.hosts[machine].metadata.get(unit.spread, "")
            over_value[value] = over_value.get(value, 0) + count
    return tuple(
        sorted(
            Score(
                over_value.get(host.metadata.get(unit.spread, ""), 0) if over_value else 0,
                unmet_wishes(unit, host),
                _share(unit, host),
                len(host.units) - (unit.unit in host.units),
                bool(image) and image not in host.images,
                host.id,
            )
            for host in hosts
        )
    )


def in_words(score: Score, unit: Requirements, scene: Scene) -> tuple[str, ...]:
    """Write a score's parts for a person, in the order they are compared."""
    parts = []
    if unit.spread and group_of(unit.unit):
        value = scene.hosts[score.machine].metadata.get(unit.spread)
        zone = f"{unit.spread}={value}" if value is not None else f"no {unit.spread}"
        parts.append(f"{score.siblings} more of {group_of(unit.unit)} over {zone}")
    parts += _wishes_in_words(unit, scene.hosts[score.machine])
    parts.append("capacity unknown" if math.isinf(score.share) else f"{score.share:.0%} requested with it")
    parts.append("1 other unit" if score.units == 1 else f"{score.units} other units")
    if unit.image and not score.pulls:
        parts.append("holds its image")
    return tuple(parts)


def _wishes_in_words(unit: Requirements, host: Host) -> list[str]:
    """Say which wishes the host meets, and which units it holds that the unit avoids."""
    parts = []
    for key, values in unit.prefer:
        held = host.metadata.get(key)
        parts.append(f"preferred {key}={held}" if held in values else f"no {key}={'|'.join(values)} as preferred")
    there = avoided(unit, host)
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        parts.append(f"{there[0]}{more} to avoid")
    return parts


def pending_of(refused: Refused, unit: str, now: float) -> Pending:
    """Make the record that tells why `unit` is not placed: what each rule refused, in the rules' order."""
    counts = []
    for rule, _ in RULES:
        by_rule = [refusal for refusal in refused.refusals if refusal.rule == rule]
        if by_rule:
            example = f"{by_rule[0].machine_name}: {by_rule[0].why}"
            counts.append(RuleCount(rule=rule, machines=len(by_rule), example=example))
    return Pending(
        unit=unit,
        considered=refused.considered,
        refused=tuple(counts),
        hint=refused.hint,
        message=refused.message,
        since=now,
    )


def _share(unit: Requirements, host: Host) -> float:
    cpu = host.cpu_load + cpu_weight(unit)
    memory = host.memory_load + memory_weight(unit)
    egress, ingress = host.egress_reserved + unit.egress, host.ingress_reserved + unit.ingress
    disk = host.disk_reserved + unit.disk
    own = host.units.get(unit.unit)
    if own is not None:
        cpu -= cpu_weight(own)
        memory -= memory_weight(own)
        egress -= own.egress
        ingress -= own.ingress
        disk -= own.disk
    whole = host.capacity
    if not whole.cpu or not whole.memory:
        return math.inf
    share = max(cpu / millis(whole.cpu), memory / whole.memory)
    if disk and whole.disk:
        share = max(share, disk / whole.disk)
    if egress and whole.egress:
        share = max(share, egress / whole.egress)
    if ingress and whole.ingress:
        share = max(share, ingress / whole.ingress)
    return share


def reason_of(unit: Requirements, scores: Sequence[Score], most: int, fitting: int, considered: int) -> str:
    """Say why the first of `scores` is the one; the second has to be there, too.

    `most` are the most siblings of any host that fits; `fitting` are so many of those `considered`.
    """
    if considered == 1:
        return "the only machine"
    if unit.machine_id:
        return f"pinned by MachineID={unit.machine_id}"
    if unit.machine_of:
        return f"together with {', '.join(unit.machine_of)}"
    if fitting == 1:
        return f"the only one of {considered} that fits"
    if unit.spread and scores[0].siblings < most:
        return f"spreads over {unit.spread}"
    best, second = scores[:2]
    if best.unmet < second.unmet:
        return f"suits its wishes best of {fitting} that fit"
    tie = best[:4] == second[:4] and second.pulls and not best.pulls
    return f"least loaded of {fitting} that fit{', and holds its image' if tie else ''}"
