"""A control group for each unit of the process driver, in every hierarchy of this host: limits, counts, shaping.

They lie in `unitfleet-<machine>/<encoded unit>`, next to the agent's own group and never within it: what ends the
agent's group ends no unit. `unitfleet-<machine>/supervisors` holds the supervisors, whose memory and processor
time are not their unit's. v1: one directory a hierarchy, joined where two controllers share one. v2: one
directory, with those controllers that may be enabled there. What is made for a unit is written down in its
directory (`cgroup.json`), for the supervisor and for the next agent, whose own group may be another one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unit_agent.cgroups.places import UNIFIED, hierarchies, paths
from unit_agent.drivers import block_device
from unit_agent.drivers.cgroup_settings import Setting, devices, needs, plan, refusal
from unit_agent.encoding import encode_name
from unit_agent.supervisor.group import FILE
from unitfleet.errors import DriverError
from unitfleet.limits import on_machine
from unitfleet.spec import ResourceLimits

logger = logging.getLogger(__name__)

V2 = {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max", "io": "io.max"}
"""v2's controllers, each with a file that shows in a group where it is enabled."""

SUPERVISORS = "supervisors"
REMOVING_S = 2.0  # how long what has just ended may hold a group

_ID_CHARACTERS = 12
_PARENTS = threading.Lock()  # the last unit's groups take their parents along, the next one's need them


@dataclass(frozen=True, slots=True)
class UnitCgroup:
    """The groups of one unit: controller (v2's whole as `unified`) to directory; none where none could be made.

    `needed` carry a limit of the unit; `notes` say which of its limits this host's kernel can't keep.
    """

    groups: Mapping[str, Path] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    memory_max: int = 0
    tasks_max: int = 0

    def path(self, controller: str) -> Path | None:
        """Return the unit's directory for a controller (`memory`, `net_cls`, `unified` …), or None."""
        return self.groups.get(controller)

    @property
    def directories(self) -> tuple[Path, ...]:
        """Return each directory once."""
        return tuple(dict.fromkeys(self.groups.values()))

    def processes(self) -> set[int]:
        """Return the pids of all that is in any of the groups; blocks."""
        found: set[int] = set()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        return found

    def write(self, unit_directory: Path) -> None:
        """Write it down in the unit's directory, whole or not at all."""
        said = {
            "groups": {name: str(path) for name, path in self.groups.items()},
            "needed": self.needed,
            "notes": self.notes,
            "memory_max": self.memory_max,
            "tasks_max": self.tasks_max,
        }
        new = unit_directory / f"{FILE}.new"
        new.write_text(json.dumps(said))
        os.replace(new, unit_directory / FILE)

    @classmethod
    def read(cls, unit_directory: Path) -> UnitCgroup:
        """Return what was written down; nothing where nothing was."""
        try:
            said = json.loads((unit_directory / FILE).read_bytes())
        except (OSError, ValueError):
            return cls()
        groups = {name: Path(path) for name, path in said["groups"].items()}
        return cls(groups, tuple(said["needed"]), tuple(said["notes"]))

    def without(self, other: UnitCgroup) -> UnitCgroup:
        """Return those groups that the other does not have."""
        kept = {name: path for name, path in self.groups.items() if path not in other.directories}
        return UnitCgroup(kept)

    def remove(self) -> None:
        """Remove the groups, and their parents once they hold no other; blocks for at most `REMOVING_S`.

        One that still has processes stays: those that KillMode= spared.
        """
        until = time.monotonic() + REMOVING_S
        for directory in self.directories:
            _remove(directory, until)
        parents = tuple(dict.fromkeys(directory.parent for directory in self.directories))
        while True:
            with _PARENTS:
                gone = all([_let_go(parent) for parent in parents])
            if gone or time.monotonic() > until:
                return
            time.sleep(0.01)  # the last unit's supervisor is about to end


@dataclass(frozen=True, slots=True)
class Place:
    """The group of one hierarchy in which `unitfleet-<machine>` goes, with the controllers to be had there."""

    parent: Path
    controllers: tuple[str, ...]
    unified: bool = False


class Cgroups:
    """Makes the groups of one machine's units; `memory` is the machine's, in bytes. Its calls block for a moment.

    `proc` and `mkdir` are the host's own but in tests.
    """

    def __init__(
        self,
        machine: str,
        memory: int,
        *,
        proc: Path = Path("/proc"),
        mkdir: Callable[[Path], None] = lambda path: path.mkdir(exist_ok=True),
    ) -> None:
        self._name = f"unitfleet-{machine[:_ID_CHARACTERS]}"
        self._memory = memory
        self._proc = proc
        self._mkdir = mkdir

    def name(self, unit: str) -> str:
        """Return the end of the path of each of the unit's groups, whether they are made yet or not."""
        return f"{self._name}/{encode_name(unit)}"

    def refusal(self, unit: str, limits: ResourceLimits) -> str:
        """Return why the unit's limits can't be kept on this host, or ""."""
        if limits == ResourceLimits():
            return ""
        usable = [place for place in self.places() if self._may_use(place)]
        reason = refusal(unit, limits, {controller for place in usable for controller in place.controllers})
        if reason:
            return reason
        try:
            for path in devices(limits):
                block_device.disk_number(path)
        except DriverError as error:
            return f"cannot limit {unit}: {error.message}"
        return ""

    def make(self, unit: str, limits: ResourceLimits) -> UnitCgroup:
        """Make the unit's groups, or go on with those that are there, and set its limits.

        Raises `DriverError` when a limit that the unit must have can't be set.
        """
        limits = on_machine(limits, self._memory)
        numbers = {path: block_device.disk_number(path) for path in devices(limits)}
        groups: dict[str, Path] = {}
        unified: set[str] = set()
        for place in self.places():
            directory = place.parent / self.name(unit)
            try:
                self._make(place, directory)
            except OSError as error:
                logger.debug("made no group of %s in %s: %s", unit, place.parent, error)
            else:
                if place.unified:
                    groups[UNIFIED] = directory
                    unified |= {name for name, file in V2.items() if (directory / file).exists()}
                groups.update(dict.fromkeys(unified if place.unified else place.controllers, directory))
        must = dict(needs(limits))
        for controller in must.keys() - groups.keys():
            raise DriverError(f"cannot limit {must[controller]} of {unit}: its cgroup could not be made")

        def has(controller: str, file: str) -> bool:
            return controller in groups and (groups[controller] / file).exists()

        settings, notes = plan(limits, has, numbers, unified)
        failed = _write(unit, settings, groups, must)
        return UnitCgroup(groups, tuple(must), (*notes, *failed), limits.memory_max, limits.tasks_max)

    def take_in(self, supervisor: int) -> None:
        """Take a supervisor out of the agent's group, where that can be done: it is to outlive the agent."""
        for place in self.places():
            with contextlib.suppress(OSError):
                (place.parent / self._name / SUPERVISORS / "cgroup.procs").write_text(str(supervisor))

    def sweep(self, held: Collection[str]) -> None:
        """Remove the empty groups of units that are not `held` here; no unit may be made meanwhile.

        An agent that was killed amid a removal left them.
        """
        kept = {SUPERVISORS, *(encode_name(unit) for unit in held)}
        for place in self.places():
            top = place.parent / self._name
            with contextlib.suppress(OSError):
                for entry in list(os.scandir(top)):
                    if entry.is_dir() and entry.name not in kept:
                        with contextlib.suppress(OSError):  # what KillMode= spared is in it
                            os.rmdir(entry.path)

    def places(self) -> tuple[Place, ...]:
        """Return where groups go: next to this process's own, or in the top where it is in the top itself."""
        own = paths(self._proc, "self")
        found: dict[Path, Place] = {}
        for controller, hierarchy in hierarchies(self._proc).items():
            top = Path(hierarchy.mount)
            mine = Path(hierarchy.directory(own.get(controller, "/")))
            parent = mine.parent if mine != top and mine.is_dir() else top
            if controller == UNIFIED:
                try:
                    held = (parent / "cgroup.controllers").read_text().split()
                except OSError:
                    continue  # it is listed and not there: another mount lies over it, or it is being unmounted
                found[parent] = Place(parent, tuple(name for name in V2 if name in held), unified=True)
            else:
                before = found[parent].controllers if parent in found else ()
                found[parent] = Place(parent, (*before, controller))
        return tuple(found.values())

    def _may_use(self, place: Place) -> bool:
        ours = place.parent / self._name
        return os.access(ours if ours.exists() else place.parent, os.W_OK)

    def _make(self, place: Place, directory: Path) -> None:
        above = directory.parent
        with _PARENTS:
            if place.unified:
                _enable(place.parent, place.controllers)
            self._mkdir(above)
            if place.unified:
                _enable(above, place.controllers)
            self._mkdir(above / SUPERVISORS)
            self._mkdir(directory)


def _write(
    unit: str, settings: Iterable[Setting], groups: Mapping[str, Path], must: Mapping[str, str]
) -> tuple[str, ...]:
    """Write the settings; returns what the kernel refused of those that the unit can do without."""
    failed = []
    for setting in settings:
        try:
            (groups[setting.controller] / setting.file).write_text(setting.text)
        except OSError as error:
            why = f"the kernel refuses {setting.text!r} in {setting.file}: {error.strerror}"
            if setting.controller in must:
                raise DriverError(f"cannot limit {must[setting.controller]} of {unit}: {why}") from error
            failed.append(f"not kept here: {why}")
    return tuple(failed)


def _enable(directory: Path, controllers: Collection[str]) -> None:
    """Enable v2's controllers for what is below; those that can't be are not there, which their files show.

    A kernel takes all of a line or none: where one is refused (processes are in the group, or it is not ours to
    change), each is tried by itself.
    """
    file = directory / "cgroup.subtree_control"
    try:
        file.write_text(" ".join(f"+{controller}" for controller in controllers))
    except OSError:
        for controller in controllers:
            with contextlib.suppress(OSError):
                file.write_text(f"+{controller}")


def _let_go(parent: Path) -> bool:
    """Remove the groups above those of units once no unit is left; False while a supervisor is still in them."""
    try:
        with os.scandir(parent) as entries:
            has_units = any(entry.is_dir() and entry.name != SUPERVISORS for entry in entries)
        if not has_units:
            with contextlib.suppress(FileNotFoundError):
                (parent / SUPERVISORS).rmdir()
            parent.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove(directory: Path, until: float) -> None:
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > until:
                logger.warning("left the cgroup %s: %s", directory, error.strerror)
                return
            time.sleep(0.01)
        else:
            return
