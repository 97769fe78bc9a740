"""`-o fleet`: the lists as fleetctl writes them, column for column, out of fleet's API.

What scripts cut out of fleetctl's output they find here: its columns and their names, short ids with dots behind
them, tabs between cells, `-` for nothing. Only machines that are there are listed, and of units only those that a
machine reports a state of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from unitctl.arguments import matching
from unitctl.client import Api
from unitctl.failures import USAGE, Failure
from unitctl.render import BadField, escape, out, warn
from unitfleet import xfleet
from unitfleet.fleetapi import Machine, State, Unit
from unitfleet.unitfile import Option, UnitFile

T = TypeVar("T")
N = TypeVar("N", Unit, State)

FORMAT = "fleet"
TAB = 8
ID, HASH = 8, 7
"""How much of an id and of a hash is shown without `--full`."""

Machines = Mapping[str, Machine]


class FullOfTable(Failure):
    """`--full` without `-o fleet`."""

    exit_code = USAGE


@dataclass(frozen=True, slots=True)
class Looks:
    """How a list is to be written."""

    fields: str = ""
    full: bool = False
    legend: bool = True


@dataclass(frozen=True, slots=True)
class Shown(Generic[T]):
    """A row's object, and what its cells need beside it."""

    of: T
    machines: Machines
    full: bool

    def machine(self, machine: str) -> str:
        """Write a machine as `id.../address`."""
        if not machine:
            return ""
        known = self.machines.get(machine)
        return "/".join(filter(None, (self.id(machine), known.primary_ip if known else "")))

    def id(self, machine: str) -> str:
        """Write a machine's id."""
        return machine if self.full else f"{machine[:ID]}..."

    def hash(self, text: str) -> str:
        """Write a unit's hash."""
        return text if self.full else text[:HASH]


Columns = Mapping[str, Callable[[Shown[T]], str]]


def list_units(api: Api, names: Sequence[str], looks: Looks) -> None:
    """Write what machines report of units; of some, if ranges or globs name them."""
    states = _matching(api, names, api.fleet_states())
    _write(states, api.fleet_machines() if states else (), UNITS, "unit,machine,active,sub", looks)


def list_unit_files(api: Api, names: Sequence[str], looks: Looks) -> None:
    """Write the registered units; some, if ranges or globs name them."""
    units = _matching(api, names, api.fleet_units())
    machines = api.fleet_machines() if any(unit.machine_id for unit in units) else ()
    if "tmachine" in looks.fields.split(","):
        warn('the "tmachine" field is deprecated: use "target" instead')
    _write(units, machines, UNIT_FILES, "unit,hash,dstate,state,target", looks)


def list_machines(api: Api, looks: Looks) -> None:
    """Write the machines that are there."""
    machines = api.fleet_machines()
    _write(machines, machines, MACHINES, "machine,ip,metadata", looks)


def verify(output: str, *, full: bool) -> None:
    """Refuse `--full` where nothing is cut."""
    if full and output != FORMAT:
        raise FullOfTable("cannot show ids in full here: --full goes with -o fleet", hint="-o json has them whole")


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out cells as Go's tabwriter does: every column ends at a multiple of eight, padded with tabs."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) + 1 for column in zip(*lines, strict=True)]
    return ["".join(map(_padded, row[:-1], widths)) + row[-1] for row in lines]


def _matching(api: Api, names: Sequence[str], found: list[N]) -> list[N]:
    if not names:
        return found
    kept = {view.name for view in matching(api.units().items, names)}
    return [one for one in found if one.name in kept]


def _padded(cell: str, width: int) -> str:
    end = -(-width // TAB) * TAB
    return cell + "\t" * -(-(end - len(cell)) // TAB)


def _write(items: Sequence[T], machines: Iterable[Machine], columns: Columns[T], usual: str, looks: Looks) -> None:
    asked = [field.strip() for field in (looks.fields or usual).split(",")]
    unknown = [field for field in asked if field not in columns]
    if unknown:
        raise BadField(f'cannot show field "{unknown[0]}"', hint=f"fields: {', '.join(columns)}")
    known = {machine.id: machine for machine in machines}
    rows = [[field.upper() for field in asked]] if looks.legend else []
    for item in items:
        shown = Shown(item, known, looks.full)
        rows.append([escape(columns[field](shown)) or "-" for field in asked])
    for line in table(rows):
        out(line)


def _file(unit: Unit) -> UnitFile:
    return UnitFile(tuple(Option(each.section, each.name, each.value, 0) for each in unit.options))


def _is_global(unit: Unit) -> bool:
    return xfleet.read(unit.name, _file(unit)).is_global


def _target(row: Shown[Unit]) -> str:
    return "global" if _is_global(row.of) else row.machine(row.of.machine_id)


def _metadata(row: Shown[Machine]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(row.of.metadata.items()))


UNITS: Columns[State] = {
    "unit": lambda row: row.of.name,
    "machine": lambda row: row.machine(row.of.machine_id),
    "load": lambda row: row.of.systemd_load_state,
    "active": lambda row: row.of.systemd_active_state,
    "sub": lambda row: row.of.systemd_sub_state,
    "hash": lambda row: row.hash(row.of.hash),
}
UNIT_FILES: Columns[Unit] = {
    "unit": lambda row: row.of.name,
    "hash": lambda row: row.hash(_file(row.of).fleet_hash()),
    "dstate": lambda row: row.of.desired_state,
    "state": lambda row: "" if _is_global(row.of) else row.of.current_state,
    "target": _target,
    "global": lambda row: str(_is_global(row.of)).lower(),
    "desc": lambda row: _file(row.of).description(),
    "tmachine": lambda row: "" if _is_global(row.of) else row.machine(row.of.machine_id),
}
MACHINES: Columns[Machine] = {
    "machine": lambda row: row.id(row.of.id),
    "ip": lambda row: row.of.primary_ip,
    "metadata": _metadata,
}
