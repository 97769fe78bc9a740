"""What is to say of a unit file, without a cluster: every problem with its place, and fleet's reading of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from unitfleet import accept, names, systemd, unitfile, xfleet
from unitfleet.dropins import Merged
from unitfleet.errors import UnitfleetError
from unitfleet.options import CONTAINER, QUADLET_SECTIONS
from unitfleet.podman import files
from unitfleet.positions import place
from unitfleet.problems import Problem, Problems, Severity
from unitfleet.quadlet_files import read_one
from unitfleet.quadlet_keys import KEYS
from unitfleet.section import Section
from unitfleet.specifiers import Specifiers
from unitfleet.xfleet import XFleet


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and the file that it is in: the unit's own, or a drop-in."""

    file: str
    problem: Problem

    def text(self) -> str:
        """Write it for a person: `file:line:column: severity: message (hint)`."""
        problem = self.problem
        hint = f" ({problem.hint})" if problem.hint else ""
        return f"{self.file}:{problem.line}:{problem.column}: {problem.severity}: {problem.message}{hint}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in one file. `name` is the unit's, or the file's where it is no unit."""

    file: str
    name: str
    options: dict[str, dict[str, list[str]]]
    wants: XFleet | None  # None: fleet can't read it
    hash: str  # fleet's
    findings: tuple[Finding, ...]

    @property
    def loads(self) -> bool:
        """Whether it can be submitted."""
        return all(finding.problem.severity is not Severity.ERROR for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """Return it as `-o json` shows it."""
        wants = self.wants
        return {
            "file": self.file,
            "name": self.name,
            "options": self.options,
            "fleet": {
                "machine_id": (wants and wants.machine_id) or "",
                "machine_of": list(wants.machine_of) if wants else [],
                "conflicts": list(wants.conflicts) if wants else [],
                "replaces": list(wants.replaces) if wants else [],
                "metadata": {key: list(values) for key, values in wants.metadata} if wants else {},
                "global": wants is not None and wants.is_global,
            },
            "hash": self.hash,
            "problems": [
                {
                    "line": found.problem.line,
                    "column": found.problem.column,
                    "severity": str(found.problem.severity),
                    "message": found.problem.message
                    if found.file == self.file
                    else f"in {found.file}: {found.problem.message}",
                    "hint": found.problem.hint,
                }
                for found in self.findings
            ],
        }


def lint(merged: Merged, *, name: str, filename: str) -> Report:
    """Read a file. `name` is the unit it would be, `filename` its own name, which says what kind it is."""
    kind = files.kind(filename)
    is_unit = kind in ("", "container")
    problems = _of_unit(name, filename, merged.text) if is_unit else _of_quadlet(kind, filename, merged.text)
    options: dict[str, dict[str, list[str]]] = {}
    wants, digest = None, ""
    try:
        file = unitfile.parse(merged.text, max_line=None)
    except unitfile.UnreadableUnit:
        pass  # no unit of fleet's; what is wrong with it beyond that has been said
    else:
        options, digest = file.contents(), file.fleet_hash()
        wants = xfleet.read(name if is_unit else filename, file)
    path = merged.parts[0][0]
    lines = merged.text.split("\n")
    return Report(
        file=path,
        name=name if is_unit else filename,
        options=options,
        wants=wants,
        hash=digest,
        findings=tuple(sorted((_placed(merged, lines, problem) for problem in problems), key=_by_place)),
    )


def unreadable(path: str, name: str, message: str, hint: str = "") -> Report:
    """Return the report on a file that is no text that could be looked at."""
    found = Finding(path, Problem(1, Severity.ERROR, message, hint, 1))
    return Report(path, name, {}, None, "", (found,))


def _placed(merged: Merged, lines: list[str], problem: Problem) -> Finding:
    line, column = place(lines, problem)
    path, line = merged.origin(line)
    return Finding(path, replace(problem, line=line, column=column))


def _by_place(finding: Finding) -> tuple[str, int, int]:
    return finding.file, finding.problem.line, finding.problem.column


def _of_unit(name: str, filename: str, text: str) -> list[Problem]:
    try:
        return accept.examine(name, text, filename=filename)[1]
    except UnitfleetError as error:
        return [Problem(0, Severity.ERROR, error.message, error.hint or "")]


def _of_quadlet(kind: str, filename: str, text: str) -> list[Problem]:
    """Say of a file that is no unit what of it has an effect: its keys, by the table."""
    problems = Problems()
    group = files.GROUPS[kind]
    found = systemd.read(text, problems)
    if group not in KEYS:
        problems.error(0, f"a .{kind} file is not supported by this version", _INSTEAD.get(kind, ""))
        return problems.found
    if group not in {section for section, _ in systemd.sections(text)}:
        problems.error(0, f"there is no [{group}] section", f"a .{kind} file says in it what to make")
    for option in found:
        if option.section in {*QUADLET_SECTIONS, CONTAINER} - {group, "Quadlet"}:
            problems.error(option.line, f"[{option.section}] does not go into a .{kind} file")
    unit = names.split(f"{filename.rpartition('.')[0]}.service")
    read_one(group, Section(group, found, Specifiers(unit), problems), filename)
    return problems.found


_INSTEAD = {
    "pod": "let the containers share a network by Network=",
    "kube": "write a .container file for each container",
    "image": "name the image itself by Image=",
    "build": "push the image to a registry and name it by Image=",
    "artifact": "make an image of it",
}
