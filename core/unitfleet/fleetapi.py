"""fleet's HTTP API v1, as it goes over the wire: what clients of fleet send and read.

Field names are fleet's, in its order (by name); what is empty is left out, as fleet does. `fleetctl` and every
other client of fleet's knows these words; ours are in `unitfleet.api`.

    GET    /fleet/v1/units?nextPageToken=                       UnitPage
    GET    /fleet/v1/units/NAME                                 Unit
    PUT    /fleet/v1/units/NAME                                 Unit → 201 of new options, 204 of a desired state
    DELETE /fleet/v1/units/NAME                                 204
    GET    /fleet/v1/state?machineID=&unitName=&nextPageToken=  StatePage
    GET    /fleet/v1/state/NAME                                 State
    GET    /fleet/v1/machines?nextPageToken=                    MachinePage
    PATCH  /fleet/v1/machines                                   MetadataOp, … → 204
    GET    /fleet/v1/discovery                                  the same, described as Google's clients read it
"""

from __future__ import annotations

import msgspec

PREFIX = "/fleet/v1"
ALIAS = "/v1-alpha"
"""Where fleet's API stood before, and still answers."""


def is_fleets(path: str) -> bool:
    """Whether a path is of fleet's API."""
    return path in (PREFIX, ALIAS) or path.startswith((f"{PREFIX}/", f"{ALIAS}/"))


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a unit file."""

    name: str = ""
    section: str = ""
    value: str = ""


class Unit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A unit: `desired_state` and `current_state` are inactive, loaded or launched."""

    current_state: str = ""
    desired_state: str = ""
    machine_id: str = msgspec.field(default="", name="machineID")
    name: str = ""
    options: tuple[Option, ...] = ()


class UnitPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A part of the units, by name."""

    next_page_token: str = ""
    units: tuple[Unit, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What one machine sees of a unit, in systemd's words; `hash` is fleet's, of the text that it has there."""

    hash: str = ""
    machine_id: str = msgspec.field(default="", name="machineID")
    name: str = ""
    systemd_active_state: str = ""
    systemd_load_state: str = ""
    systemd_sub_state: str = ""


class StatePage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A part of the states, by unit and machine."""

    next_page_token: str = ""
    states: tuple[State, ...] = ()


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A machine that is there."""

    id: str
    metadata: dict[str, str] = {}
    primary_ip: str = msgspec.field(default="", name="primaryIP")


class MachinePage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A part of the machines, by id."""

    machines: tuple[Machine, ...] = ()
    next_page_token: str = ""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value as fleet's code took it."""

    value: str = ""


class MetadataOp(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a machine's metadata: `path` is `/<machine>/metadata/<key>`.

    fleet's page wrote the value as a string, its code took `{"value": "x"}` alone: both are taken.
    """

    op: str = ""
    path: str = ""
    value: Value | str = ""

    @property
    def text(self) -> str:
        """The value, however it was written."""
        return self.value.value if isinstance(self.value, Value) else self.value


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: the status once more, and words."""

    code: int
    message: str


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Every error."""

    error: Wrong
