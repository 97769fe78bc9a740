"""A refusal in words: what no machine could offer, and the nearest thing a user can do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from unit_master.rules import (
    conflicting,
    cores,
    disk_left_for,
    in_the_way,
    is_pinned_to,
    lease_suffices,
    left_for,
    missing_metadata,
    missing_secrets,
    replacers,
    short_of,
    size,
    unwanted_metadata,
    uplink_left_for,
    warms_for,
)
from unit_master.scene import Host, Scene, millis
from unitfleet.model import MachineStatus, Requirements
from unitfleet.policy import OPEN, exceeds
from unitfleet.rates import rate_text

Fix = tuple[float, str]
"""How much a fix asks of a user (1 is least), and the fix."""


def summary(unit: Requirements, refused: Sequence[tuple[Host, str]], scene: Scene) -> str:
    """Say in one sentence which rule refused how many hosts, the most frequent reason first."""
    if missing := missing_secrets(unit, scene):
        return f"secret: {_all_of(missing)} {'is' if len(missing) == 1 else 'are'} not set"
    if not refused:
        return "no machine fits: none other is there" if scene.hosts else "no machine fits: none has joined yet"
    counts: dict[tuple[str, str], int] = {}
    for host, rule in refused:
        phrases = _phrases(unit, host, rule)
        counts[phrases] = counts.get(phrases, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])  # stable: ties stay in the order of machine ids
    reasons = ", ".join(f"{count} {one if count == 1 else many}" for (one, many), count in ranked)
    return f"no machine fits: {len(refused)} considered: {reasons}"


def nearest_fix(unit: Requirements, hosts: Iterable[Host], scene: Scene) -> str:
    """Return what to do about the host that is closest to taking the unit, all its obstacles counted."""
    if missing := missing_secrets(unit, scene):
        return " and ".join(f"unitctl secret set {name}" for name in missing)
    waiting = [peer for peer in unit.machine_of if peer not in scene.place]
    if waiting:
        return f"start {_all_of(waiting)} first"
    best: tuple[float, str, list[Fix]] | None = None
    for host in hosts:
        fixes = _fixes(unit, host, scene)
        cost = sum(cost for cost, _ in fixes)
        if best is None or (cost, host.id) < best[:2]:
            best = cost, host.id, fixes
    if best is None:
        return "add a machine" if scene.hosts else "start unit-agent on a host"
    return " and ".join(dict.fromkeys(fix for _, fix in best[2]))


def _phrases(unit: Requirements, host: Host, rule: str) -> tuple[str, str]:
    """Return the reason as it follows "1 …" and as it follows "2 …"."""
    match rule:
        case "pin":
            return f"is not machine {unit.machine_id}", f"are not machine {unit.machine_id}"
        case "ready":
            state = _unready(unit, host)
            return f"is {state}", f"are {state}"
        case "room":
            return "is too full", "are too full"
        case "driver":
            drivers = f"no {' or '.join(unit.drivers) or 'suitable'} driver"
            return f"has {drivers}", f"have {drivers}"
        case "lease":
            return "has too short a lease", "have too short a lease"
        case "policy":
            return "does not allow what it asks for", "do not allow what it asks for"
        case "secret":
            return "has no key for secrets", "have no key for secrets"
        case "metadata":
            wanted, unwanted = missing_metadata(unit, host), unwanted_metadata(unit, host)
            if not wanted:
                return f"has {_all_of(unwanted)}", f"have {_all_of(unwanted)}"
            return f"lacks {_all_of(wanted)}", f"lack {_all_of(wanted)}"
        case "peers":
            return f"is without {_all_of(unit.machine_of)}", f"are without {_all_of(unit.machine_of)}"
        case "conflicts":
            return "holds a unit in conflict with it", "hold a unit in conflict with it"
        case "replaces":
            return "holds a unit that replaces it", "hold a unit that replaces it"
        case "ports":
            things = _all_of([thing for thing, _ in in_the_way(unit, host)])
            return f"has {things} taken", f"have {things} taken"
        case _:
            short = f"short of {_all_of(short_of(unit, host))}"
            return short, short


def _unready(unit: Requirements, host: Host) -> str:
    if host.status is not MachineStatus.READY:
        return host.status.value
    if unit.unit in host.leaving:
        return "still stopping its old copy"
    if host.drained or host.cordoned:
        return "drained" if host.drained else "cordoned"
    if host.shut_out and not host.holds(unit.unit):
        return "shut out"
    return "warming"


def _fixes(unit: Requirements, host: Host, scene: Scene) -> list[Fix]:
    """Return what would make this host take the unit, one fix for each obstacle."""
    fixes: list[Fix] = []
    if unit.machine_id and not is_pinned_to(unit, host):
        fixes.append((50, f"start the agent of machine {unit.machine_id} or change MachineID="))
    fixes += _readying(unit, host, scene)
    if host.status is MachineStatus.READY and not set(unit.drivers) & set(host.drivers):
        fixes.append((6, f"add a machine with the {' or '.join(unit.drivers) or 'right'} driver"))
    if lease_suffices(unit, host, scene) is not None:
        fixes.append((7, f"start the agent of {host.name} with --profile=fast or default"))
    if why := exceeds(unit.demands, host.policy):
        fixes.append((8, f"ask for less in the unit ({host.name} {why}){_or_allow(unit, host)}"))
    if unit.secrets and not host.has_key and host.status is MachineStatus.READY:
        fixes.append((6, f"update the agent of {host.name}"))
    for missing in missing_metadata(unit, host):
        key, _, values = missing.partition("=")
        fixes.append((4, f"add {' or '.join(f'{key}={value}' for value in values.split('|'))} to a machine"))
    for unwanted in unwanted_metadata(unit, host):
        fixes.append((4, f"add a machine without {unwanted}"))
    away = [peer for peer in unit.machine_of if scene.place[peer] != host.id]
    if away:
        together = _all_of(unit.machine_of)
        fixes.append((40, f"put {together} on one machine" if len(unit.machine_of) > 1 else f"move {together}"))
    fixes += _making_room(unit, host)
    return fixes


def _readying(unit: Requirements, host: Host, scene: Scene) -> list[Fix]:
    if host.status is MachineStatus.LOST:
        return [(12, f"bring {host.name} back{_or_add(unit)}")]
    if host.status is MachineStatus.SUSPECT:
        return [(2.5, f"wait for {host.name} to come back")]
    fixes: list[Fix] = []
    if unit.unit in host.leaving:
        fixes.append((1, f"wait until its old copy has left {host.name}"))
    if host.drained:
        fixes.append((2, f"undrain {host.name}"))
    elif host.cordoned and not host.holds(unit.unit):
        fixes.append((1, f"uncordon {host.name}"))
    if host.shut_out and not host.holds(unit.unit):
        fixes.append((12, f"let {host.name} in again{_or_add(unit)}"))
    if warms_for(unit, host, scene):
        fixes.append((0.5, f"wait until {host.name} is warm ({host.warming})"))
    if host.closed and not host.holds(unit.unit):
        fixes.append((3, f"free space on {host.name}{_or_add(unit)}"))
    return fixes


def _making_room(unit: Requirements, host: Host) -> list[Fix]:
    fixes: list[Fix] = []
    blockers = {*conflicting(unit, host), *replacers(unit, host), *(who for _, who in in_the_way(unit, host))}
    staying = sorted(blockers - host.leaving)
    if staying:
        fixes.append((3 * len(staying), f"stop {_all_of(staying)} on {host.name}{_or_add(unit)}"))
    elif blockers:
        fixes.append((1, f"wait until {_all_of(sorted(blockers))} has left {host.name}"))
    cpu, memory = left_for(unit, host)
    egress, ingress = uplink_left_for(unit, host)
    whole = host.capacity
    for resource in short_of(unit, host):
        match resource:
            case "cpu":
                fixes.append(_less(unit, host, "CPU", millis(unit.cpu), cpu, millis(whole.cpu), cores))
            case "memory":
                fixes.append(_less(unit, host, "Memory", unit.memory, memory, whole.memory, size))
            case "disk" if whole.disk:
                fixes.append(_less(unit, host, "Disk", unit.disk, disk_left_for(unit, host), whole.disk, size))
            case "disk":
                fixes.append((4, f"update the agent of {host.name}, which does not tell its disk"))
            case "egress" if whole.egress:
                fixes.append(_less(unit, host, "Egress", unit.egress, egress, whole.egress, rate_text))
            case "ingress" if whole.ingress:
                fixes.append(_less(unit, host, "Ingress", unit.ingress, ingress, whole.ingress, rate_text))
            case unknown:
                fixes.append((4, f"set --{unknown} on the agent of {host.name}"))
    return fixes


def _less(
    unit: Requirements, host: Host, key: str, needs: int, left: int, whole: int, written: Callable[[int], str]
) -> Fix:
    """Return the fix for a shortage: ask for less where that is near, else make room or add a machine."""
    cost = 2 + (needs - left) / needs
    if left * 2 >= needs:
        return cost, f"{host.name} would fit with {key}={written(left)}"
    if needs <= whole:
        return cost, f"free {written(needs - left)} of {key} on {host.name}{_or_add(unit)}"
    return cost + 5, f"add a machine with {key} of {written(needs)} or more ({host.name} has {written(whole)})"


def _or_allow(unit: Requirements, host: Host) -> str:
    """Offer a change of the host's policy, unless none can allow it."""
    return "" if exceeds(unit.demands, OPEN) else f" or allow it in the policy of {host.name}"


def _or_add(unit: Requirements) -> str:
    """Offer a new machine, unless the unit is bound to one that is there."""
    return "" if unit.machine_id or unit.machine_of else " or add a machine"


def _all_of(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
