"""How an agent is, as its listener tells it."""

from __future__ import annotations

import msgspec

from unitfleet.model import UnitState


class UnitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One unit on this host: the order, whether it is held here, and its state when there is one to tell."""

    unit: str
    wanted: str  # loaded launched gone, "" for a copy without a placement
    held: bool
    state: UnitState | None


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. Texts are "" when all is well, else they say why not."""

    machine: str
    name: str
    standing: bool  # its presence stands in the store
    synced: bool  # its placements were read since it started
    store: str
    keep_everything: str
    unsaved: str
    drivers: dict[str, str]
    units: tuple[UnitStatus, ...]
