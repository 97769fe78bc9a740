"""Metadata that an operator sets: it overlays what the machine itself says. A pure decision."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from unit_master.view import ClusterView
from unitfleet.model import MachineSpec

MAX_VALUE = 256

Labels = Mapping[str, Mapping[str, str | None]]
"""Machine → key → its value, None to take the key away."""


def relabelled(view: ClusterView, machine: str, labels: Mapping[str, str | None]) -> MachineSpec:
    """Return the machine's record with these labels. What the machine says of itself is hidden, not undone."""
    entry = view.machine_specs.get(machine)
    held = entry.value if entry else MachineSpec(id=machine)
    present, known = view.presence.get(machine), view.roster.get(machine)
    own = present.value.metadata if present else known.value.metadata if known else {}
    metadata = dict(held.metadata)
    for key, value in labels.items():
        if value is None and key not in own:
            metadata.pop(key, None)
        else:
            metadata[key] = value or ""
    return msgspec.structs.replace(held, metadata=metadata)


def value_fault(value: str) -> str | None:
    """Return why no metadata can have this value, or None."""
    if len(value) > MAX_VALUE:
        return f"it has {len(value)} characters, {MAX_VALUE} are allowed"
    if not value.isprintable():
        return "it holds a control character"
    return None
