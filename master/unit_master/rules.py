"""The rules of placement: each says why a unit may not be put on a host, or None. In words for the user.

Pin, metadata, peers, Conflicts and Replaces mean what they mean in fleet (AgentState.AbleToRun); readiness,
drivers, ports and resources are ours. A unit's own live placement never counts against itself.
"""

from __future__ import annotations

from collections.abc import Callable

from unit_master.patterns import names_any
from unit_master.scene import Host, PortOrName, Scene, claims, millis
from unitfleet.model import MachineStatus, Requirements
from unitfleet.policy import exceeds
from unitfleet.rates import rate_text

Rule = Callable[[Requirements, Host, Scene], str | None]

_MIB = 1024 * 1024
STRICT_TTL_S = 5.0


def is_pinned_to(unit: Requirements, host: Host) -> bool:
    """Say whether MachineID= names this host: its whole id, or the first 8 characters of it (fleet's rule)."""
    return unit.machine_id in (host.id, host.id[:8])


def pin_allows(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse every host but the one that MachineID= names."""
    if not unit.machine_id or is_pinned_to(unit, host):
        return None
    return f"is not machine {unit.machine_id}"


def is_ready(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host that takes no new units now; a cordon or warming does not concern the unit that is there."""
    if host.status is MachineStatus.LOST:
        return "is lost"
    if host.status is MachineStatus.SUSPECT:
        return "is suspect: its agent is not heard from"
    if unit.unit in host.leaving:
        return f"its old copy is still leaving {host.name}"
    if host.drained:
        return "is drained"
    if host.cordoned and not host.holds(unit.unit):
        return "is cordoned"
    if host.shut_out and not host.holds(unit.unit):
        return "is shut out"
    if warms_for(unit, host, scene):
        return f"is warming: {host.warming}"
    return None


def warms_for(unit: Requirements, host: Host, scene: Scene) -> bool:
    """Say whether the unit waits until the host holds its warm set: one whose start pulls nothing does not."""
    if not (host.warming and unit.image) or host.holds(unit.unit):
        return False
    return scene.pinned.get(unit.unit, unit.image) not in host.images


def has_room(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host whose agent says that it is too full for new units; the unit that is there stays."""
    return host.closed if host.closed and not host.holds(unit.unit) else None


def driver_present(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host that has none of the drivers which can run the unit."""
    if any(driver in host.drivers for driver in unit.drivers):
        return None
    if not unit.drivers:
        return "no driver can run it"
    return f"needs the {' or '.join(unit.drivers)} driver (has {', '.join(host.drivers) or 'none'})"


def lease_suffices(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host whose lease does not outlive a change of etcd's leader: a strict unit would stop for it."""
    if not unit.strict or host.ttl_s >= STRICT_TTL_S:
        return None
    return f"its lease of {host.ttl_s:g} s is too short for a strict unit, which needs {STRICT_TTL_S:g} s"


def policy_allows(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host whose own policy does not let the unit have what it asks for."""
    return exceeds(unit.demands, host.policy)


def missing_secrets(unit: Requirements, scene: Scene) -> tuple[str, ...]:
    """Return the secrets that the unit names and nobody has set."""
    return tuple(name for name in unit.secrets if name not in scene.secrets)


def secrets_at_hand(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse every host while a secret of the unit is not set, and one whose agent can't be given any."""
    if missing := missing_secrets(unit, scene):
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
    return "its agent has no key for secrets" if unit.secrets and not host.has_key else None


def missing_metadata(unit: Requirements, host: Host) -> tuple[str, ...]:
    """Return what the unit asks for and the host lacks, each as `key=value|value`."""
    return tuple(
        f"{key}={'|'.join(allowed)}" for key, allowed in unit.metadata if host.metadata.get(key) not in allowed
    )


def unwanted_metadata(unit: Requirements, host: Host) -> tuple[str, ...]:
    """Return what the host has and the unit must not have, each as `key=value`."""
    return tuple(
        f"{key}={host.metadata[key]}"
        for key, refused in unit.metadata_not
        if key in host.metadata and host.metadata[key] in refused
    )


def metadata_matches(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host that lacks metadata. Same key: any value will do; different keys: all (fleet's rule).

    With `!=` (ours) none of the values; a host without the key will do.
    """
    if not (unit.metadata or unit.metadata_not):
        return None
    lacking = []
    for wanted in missing_metadata(unit, host):
        key = wanted.partition("=")[0]
        held = f"{key}={host.metadata[key]}" if key in host.metadata else f"no {key}"
        lacking.append(f"{wanted} not found (has {held})")
    lacking += [f"has {held}" for held in unwanted_metadata(unit, host)]
    return ", ".join(lacking) or None


def peers_here(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host that is not the place of every unit which MachineOf= names."""
    for peer in unit.machine_of:
        place = scene.place.get(peer)
        if place is None:
            return f"{peer} is not placed"
        if place != host.id:
            return f"{peer} is on {scene.hosts[place].name if place in scene.hosts else place[:8]}"
    return None


def conflicting(unit: Requirements, host: Host) -> list[str]:
    """Return the units on the host that Conflicts= of either side names, leaving ones too, in name order."""
    if not (unit.conflicts or host.wary):
        return []
    names = {name for name in host.units if names_any(unit.conflicts, name)} if unit.conflicts else set()
    names.update(other for other in host.wary if names_any(host.units[other].conflicts, unit.unit))
    names.discard(unit.unit)
    return sorted(names)


def conflicts_with_none(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host with a unit that either side's Conflicts= names; never against itself."""
    names = conflicting(unit, host)
    if not names:
        return None
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"conflicts with {names[0]}{more} here"


def replacers(unit: Requirements, host: Host) -> list[str]:
    """Return the units that stay on the host and replace this one, in name order; mutual Replaces is ignored."""
    if not host.replacing:
        return []
    return sorted(
        other
        for other in host.replacing
        if other != unit.unit
        and other not in host.leaving
        and names_any(host.units[other].replaces, unit.unit)
        and not names_any(unit.replaces, other)
    )


def not_replaced(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host with a unit whose Replaces= would move this one away again."""
    names = replacers(unit, host)
    return f"is replaced by {names[0]} here" if names else None


def in_the_way(unit: Requirements, host: Host) -> list[tuple[str, str]]:
    """Return the unit's ports and container name that others on the host hold, each with a holder."""
    if not (unit.host_ports or unit.container_name):
        return []
    found = []
    for thing in claims(unit):
        holders = host.taken.get(thing, set()) - {unit.unit}
        if holders:
            found.append((name_of(thing), min(holders)))
    return sorted(found)


def name_of(thing: PortOrName) -> str:
    """Return a port or container name in words."""
    return f"container name {thing}" if isinstance(thing, str) else f"port {thing[0]}/{thing[1]}"


def ports_free(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host where a port or container name of the unit is held, by a leaving unit too."""
    taken = [f"{thing} is taken by {holder}" for thing, holder in in_the_way(unit, host)]
    return ", ".join(taken) or None


def unmet_wishes(unit: Requirements, host: Host) -> int:
    """Count the wishes that are not met here: each Prefer= that the host lacks, each unit that Avoid= names."""
    lacking = sum(host.metadata.get(key) not in values for key, values in unit.prefer)
    return lacking + len(avoided(unit, host))


def avoided(unit: Requirements, host: Host) -> list[str]:
    """Return the units on the host that Avoid= names, in name order; never the unit itself."""
    if not unit.avoid:
        return []
    return sorted(name for name in host.units if name != unit.unit and names_any(unit.avoid, name))


def left_for(unit: Requirements, host: Host) -> tuple[int, int]:
    """Return what the host has left for this unit: thousandths of a core, bytes; its own share counts as free."""
    own = host.units.get(unit.unit)
    cpu = millis(host.capacity.cpu) - host.cpu_millis + (millis(own.cpu) if own else 0)
    memory = host.capacity.memory - host.memory_reserved + (own.memory if own else 0)
    return max(cpu, 0), max(memory, 0)


def disk_left_for(unit: Requirements, host: Host) -> int:
    """Return the bytes of the host's disk that nobody else reserved; 0 of one that is not known."""
    own = host.units.get(unit.unit)
    return max(host.capacity.disk - host.disk_reserved + (own.disk if own else 0), 0)


def uplink_left_for(unit: Requirements, host: Host) -> tuple[int, int]:
    """Return what of the host's uplink nobody else is guaranteed: egress, ingress in bit/s; 0 of an unknown one.

    What is guaranteed to the unit here already stays its own, even when the uplink became slower since.
    """
    own = host.units.get(unit.unit)
    egress, ingress = (own.egress, own.ingress) if own else (0, 0)
    return (
        max(host.capacity.egress - host.egress_reserved + egress, egress),
        max(host.capacity.ingress - host.ingress_reserved + ingress, ingress),
    )


def short_of(unit: Requirements, host: Host) -> tuple[str, ...]:
    """Return what the unit requests and the host has not left: of `cpu`, `memory`, `disk`, `egress`, `ingress`."""
    if not (unit.cpu or unit.memory or unit.disk or unit.egress or unit.ingress):
        return ()
    cpu, memory = left_for(unit, host)
    short = []
    if millis(unit.cpu) > cpu:
        short.append("cpu")
    if unit.memory > memory:
        short.append("memory")
    if unit.disk and unit.disk > disk_left_for(unit, host):
        short.append("disk")
    if unit.egress or unit.ingress:
        egress, ingress = uplink_left_for(unit, host)
        short += [
            word for word, more in (("egress", unit.egress > egress), ("ingress", unit.ingress > ingress)) if more
        ]
    return tuple(short)


def uplink_short(unit: Requirements, host: Host) -> list[str]:
    """Say for which of the unit's guarantees the host's uplink has not enough left."""
    lefts = uplink_left_for(unit, host)
    parts = []
    for word, needs, left in zip(("egress", "ingress"), (unit.egress, unit.ingress), lefts, strict=True):
        whole: int = getattr(host.capacity, word)
        if needs > left and not whole:
            parts.append(f"{word}: this machine's uplink is not known (set --{word} on its agent)")
        elif needs > left:
            parts.append(
                f"{word}: {rate_text(left)} of {rate_text(whole)} left on {host.name}, needs {rate_text(needs)}"
            )
    return parts


def resources_left(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Refuse a host that has less left than the unit requests. A unit that requests nothing always fits."""
    short = short_of(unit, host)
    if not short:
        return None
    cpu, memory = left_for(unit, host)
    parts = []
    if "cpu" in short:
        needs = millis(unit.cpu)
        parts.append(
            f"cpu: {cores(needs - cpu)} short "
            f"(needs {cores(needs)}, {cores(cpu)} of {cores(millis(host.capacity.cpu))} left)"
        )
    if "memory" in short:
        parts.append(
            f"memory: {size(unit.memory - memory, up=True)} short "
            f"(needs {size(unit.memory, up=True)}, {size(memory)} of {size(host.capacity.memory)} left)"
        )
    if "disk" in short and not host.capacity.disk:
        parts.append("disk: what this machine has is not known")
    elif "disk" in short:
        disk = disk_left_for(unit, host)
        parts.append(
            f"disk: {size(unit.disk - disk, up=True)} short "
            f"(needs {size(unit.disk, up=True)}, {size(disk)} of {size(host.capacity.disk)} left)"
        )
    return ", ".join(parts + uplink_short(unit, host))


RULES: tuple[tuple[str, Rule], ...] = (
    ("pin", pin_allows),
    ("ready", is_ready),
    ("room", has_room),
    ("driver", driver_present),
    ("lease", lease_suffices),
    ("policy", policy_allows),
    ("secret", secrets_at_hand),
    ("metadata", metadata_matches),
    ("peers", peers_here),
    ("conflicts", conflicts_with_none),
    ("replaces", not_replaced),
    ("ports", ports_free),
    ("resources", resources_left),
)
"""In the order they are asked; the names stand in `pending/<unit>` and in `explain`."""


def unsuitable(unit: Requirements, host: Host, scene: Scene) -> str | None:
    """Return why a unit that is placed on this host should leave although the machine is fine, or None.

    Of two live units in conflict the later by name leaves, so that one of them stays. Cordon, a driver's
    absence, a policy and resources never make a unit leave.
    """
    for rule in (pin_allows, metadata_matches, peers_here, not_replaced):
        why = rule(unit, host, scene)
        if why is not None:
            return why
    for other in conflicting(unit, host):
        if other < unit.unit and other not in host.leaving:
            return f"conflicts with {other} here"
    return None


def cores(thousandths: int) -> str:
    """Write an amount of CPU: `0.5`, `2`."""
    return f"{thousandths / 1000:g}"


def size(amount: int, *, up: bool = False) -> str:
    """Write bytes as a unit file would, rounded down (or up) to whole MiB: `416M`, `1.5G`, `4G`."""
    mib = -(-amount // _MIB) if up else amount // _MIB
    tenths, rest = divmod(mib * 10, 1024)
    if mib >= 1024 and rest == 0:
        return f"{tenths / 10:g}G"
    return f"{mib}M"
