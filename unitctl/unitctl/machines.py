"""Finding a machine by what the user typed."""

from __future__ import annotations

from collections.abc import Sequence

from unitctl.render import joined, short
from unitfleet.api import MachineView
from unitfleet.errors import NotFound, Refused


def find_machine(machines: Sequence[MachineView], asked: str) -> MachineView:
    """Return the machine of this name, id or unique prefix of either. Raises NotFound, Refused if several fit."""
    exact = [view for view in machines if asked in (view.id, view.name)]
    fits = exact or [view for view in machines if view.id.startswith(asked) or view.name.startswith(asked)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        candidates = joined(
            [f"{view.name} ({short(view.id)})" for view in sorted(fits, key=lambda view: (view.name, view.id))]
        )
        raise Refused(f"cannot tell which machine {asked} is: {candidates}", hint="give more of its name or id")
    known = joined([view.name for view in machines]) or "none"
    raise NotFound(f"cannot find machine {asked}", hint=f"machines: {known}")
