"""Which images each machine is to hold, and whose turn it is to pull them: pure functions of the view.

A machine's *warm set* is what it would have to pull if the units that could be placed on it were: every launched
unit's image, by pin, driver and metadata, what `unitctl images warm` names, and what its own settings do. An image
that is pinned for a unit's text stands there by its digest.

Turns keep a registry from being stormed. Of the machines that lack an image, as many may pull it at once as hold
it already, and never less than `FIRST`: over n machines that takes about log2(n) waves. One that failed goes to
the end of the line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unit_master.rules import driver_present, metadata_matches, pin_allows
from unit_master.scene import Host, Scene
from unit_master.view import ClusterView
from unitfleet.api import ImageOnMachine, ImageView
from unitfleet.model import MachineStatus, Requirements, TargetState, WarmImage, WarmSet
from unitfleet.names import split
from unitfleet.spec import Pull

FIRST = 2
"""Machines that pull an image at once before any holds it."""

DOCKER = "docker"

_RULES = (pin_allows, driver_present, metadata_matches)


@dataclass(frozen=True, slots=True)
class _Need:
    """An image and the machines it is for: what one unit, or one `images warm`, asks."""

    image: str
    unit: Requirements

    def wants(self, host: Host) -> bool:
        return all(rule(self.unit, host, _NOWHERE) is None for rule in _RULES)


_NOWHERE = Scene()  # these rules look at the unit and the host alone


def reference_digest(image: str) -> str:
    """Return the key of an image under warm/."""
    return hashlib.sha256(image.encode()).hexdigest()


def plan_warm_sets(view: ClusterView) -> list[WarmSet]:
    """Return the warm sets that are not as the store says, of machines that are there and run containers."""
    hosts = [_host(view, machine) for machine in sorted(view.presence) if _warms(view, machine)]
    wanted = images_wanted(view, hosts)
    turns = turns_of(view, wanted)
    found = []
    for host in hosts:
        mine = WarmSet(
            id=host.id,
            nonce=view.presence[host.id].value.nonce,
            images=wanted[host.id],
            turns=tuple(image for image in wanted[host.id] if host.id in turns.get(image, ())),
        )
        known = view.warm_sets.get(host.id)
        if known is None or known.value != mine:
            found.append(mine)
    return found


def images_wanted(view: ClusterView, hosts: Iterable[Host]) -> dict[str, tuple[str, ...]]:
    """Return by machine the images that it is to hold, in order."""
    hosts = list(hosts)
    needs = _needs(view) if hosts else set()

    def of(host: Host) -> set[str]:
        return {need.image for need in needs if need.wants(host)} | set(view.presence[host.id].value.warm)

    return {host.id: tuple(sorted(of(host))) for host in hosts}


def turns_of(view: ClusterView, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return by image the machines that may pull it now.

    Those under way go on; then come those that have not tried, and last those that failed, the longest ago first,
    or that tell nothing at all: their Engine may be away.
    """
    holders: dict[str, int] = {}
    lacking: dict[str, list[tuple[int, int, str]]] = {}
    for machine, images in wanted.items():
        told = view.images.get(machine)
        for image in images:
            if told is not None and image in told.value.held:
                holders[image] = holders.get(image, 0) + 1
                continue
            line = 1
            if told is None:
                line = 2
            elif image in told.value.pulling:
                line = 0
            elif told.value.missing.get(image):
                line = 2
            told_at = told.revision if told is not None and line == 2 else 0
            lacking.setdefault(image, []).append((line, told_at, machine))
    return {
        image: tuple(machine for _, _, machine in sorted(line)[: max(FIRST, holders.get(image, 0))])
        for image, line in lacking.items()
    }


def image_views(view: ClusterView, asked: str = "") -> list[ImageView]:
    """Return every image that some machine is to hold, machine by machine; only `asked` when it is given.

    `asked` is a reference as a unit or `images warm` has it, or a digest.
    """
    wanted = {machine: entry.value.images for machine, entry in view.warm_sets.items() if machine in view.presence}
    units: dict[str, set[str]] = {}
    written: dict[str, set[str]] = {}
    for name, image, reference in _of_units(view):
        units.setdefault(image, set()).add(name)
        written.setdefault(image, set()).add(reference)
    ordered = {entry.value.image: entry.value for entry in view.warm.values()}
    settings = {image for machine in wanted for image in view.presence[machine].value.warm}
    images = {image for held in wanted.values() for image in held} | ordered.keys() | units.keys()
    return [
        ImageView(
            image=image,
            names=tuple(sorted(written.get(image, ()))),
            units=tuple(sorted(units.get(image, ()))),
            ordered=image in ordered,
            where=dict(ordered[image].where) if image in ordered else {},
            by_settings=image in settings,
            machines=tuple(
                _on_machine(view, image, machine) for machine in sorted(wanted) if image in wanted[machine]
            ),
        )
        for image in sorted(images)
        if asked in ("", image) or asked in written.get(image, ())
    ]


def _on_machine(view: ClusterView, image: str, machine: str) -> ImageOnMachine:
    told = view.images.get(machine)
    name = view.machine_name(machine)
    if told is None:
        why = "its agent has not told yet"
        return ImageOnMachine(machine=machine, machine_name=name, state="waiting", why=why)
    if image in told.value.held:
        return ImageOnMachine(machine=machine, machine_name=name, state="held")
    if image in told.value.pulling:
        percent = told.value.pulling[image]
        layers = told.value.layers.get(image, "")
        return ImageOnMachine(machine=machine, machine_name=name, state="pulling", percent=percent, why=layers)
    why = told.value.missing.get(image, "")
    return ImageOnMachine(
        machine=machine,
        machine_name=name,
        state="missing" if why else "waiting",
        why=why or "waits for its turn to pull",
    )


def _host(view: ClusterView, machine: str) -> Host:
    return Host(
        id=machine,
        name=view.machine_name(machine),
        metadata=view.metadata(machine),
        drivers=view.presence[machine].value.drivers,
    )


def _warms(view: ClusterView, machine: str) -> bool:
    known = view.roster.get(machine)
    return (
        known is not None
        and known.value.status is not MachineStatus.LOST
        and DOCKER in view.presence[machine].value.drivers
    )


def _needs(view: ClusterView) -> set[_Need]:
    """Return what is asked, once for all units that ask the same: instances of a template do."""
    found = {_ordered(entry.value) for entry in view.warm.values()}
    for name, image, _ in _of_units(view):
        spec = view.spec(name, view.units[name].value.spec)
        assert spec is not None, "it has an image"
        unit = spec.requirements
        found.add(
            _Need(
                image,
                Requirements(
                    unit="",
                    drivers=(DOCKER,),
                    machine_id=unit.machine_id,
                    metadata=tuple(sorted(unit.metadata)),
                    metadata_not=tuple(sorted(unit.metadata_not)),
                ),
            )
        )
    return found


def _ordered(warm: WarmImage) -> _Need:
    metadata = tuple((key, (value,)) for key, value in sorted(warm.where.items()))
    return _Need(warm.image, Requirements(unit="", drivers=(DOCKER,), metadata=metadata))


def _of_units(view: ClusterView) -> Iterable[tuple[str, str, str]]:
    """Yield each launched unit that pulls an image, with the image to pull and its reference in the text.

    Left out are those that say Warm=no or Pull=never, those whose reference only their machine can tell (`%H`),
    and those whose pinned image never came from a registry: no other machine can pull it.
    """
    for name, entry in view.units.items():
        unit = entry.value
        if unit.target is not TargetState.LAUNCHED:
            continue
        spec = view.spec(name, unit.spec)
        if spec is None or spec.container is None or not spec.warm or spec.container.pull is Pull.NEVER:
            continue
        if split(name).is_template:
            continue
        pin = view.pins.get(unit.spec)
        image = pin.value.image if pin is not None else spec.container.image
        if image and not image.startswith("sha256:"):
            yield name, image, spec.container.image
