"""Which kept copies have to go, so that a host that fails again and again does not fill up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unitfleet.api import Scene

MOST_OF_A_UNIT = 1


@dataclass(frozen=True, slots=True)
class Doomed:
    """A scene that is to go, and why."""

    scene: Scene
    why: str


def over(scenes: Iterable[Scene], *, most: int, most_bytes: int) -> Sequence[Doomed]:
    """Return what is beyond one a unit, `most` and `most_bytes` on this host, the oldest first.

    Copies that still stand where they failed are not counted: they go when their unit runs again.
    """
    kept = sorted((scene for scene in scenes if not scene.in_place), key=lambda scene: (scene.at, scene.id))
    doomed: list[Doomed] = []
    by_unit: dict[str, int] = {}
    for scene in reversed(kept):
        by_unit[scene.unit] = by_unit.get(scene.unit, 0) + 1
        if by_unit[scene.unit] > MOST_OF_A_UNIT:
            doomed.append(Doomed(scene, "a newer one of the unit is kept"))
    gone = {one.scene.id for one in doomed}
    kept = [scene for scene in kept if scene.id not in gone]
    size = sum(scene.size for scene in kept)
    for number, scene in enumerate(kept):
        if len(kept) - number > most:
            doomed.append(Doomed(scene, f"at most {most} are kept on a host"))
        elif size > most_bytes:
            doomed.append(Doomed(scene, f"at most {most_bytes >> 20} MiB of them are kept on a host"))
        else:
            break
        size -= scene.size
    return sorted(doomed, key=lambda one: (one.scene.at, one.scene.id))
