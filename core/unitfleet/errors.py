"""Every error of Unitfleet, one root, a leaf for each thing a caller handles differently.

UnitfleetError
├── InvalidName              a unit or machine name that breaks the rules
├── InvalidUnit              a unit file we refuse: carries every problem with its line
├── InvalidConfig            a daemon's or unitctl's configuration
├── NotFound                 a unit, machine or context nobody knows
├── Refused                  a command that the present state forbids, with what to do instead
├── StoreError
│   ├── StoreUnavailable     no endpoint answered; surely nothing was written
│   ├── OutcomeUnknown       a write was sent and its answer lost: read again before you decide
│   ├── StoreFull            the store takes no writes (NOSPACE)
│   ├── StoreDenied          the store refuses this identity what it asked for
│   ├── Compacted            the revision asked for is gone: list anew
│   ├── LeaseLost            the lease expired or was revoked
│   └── BadRecord            a value in the store that is not ours to read
└── DriverError              a driver could not do what was asked; the message is for the user
    ├── DriverUnavailable    the Engine, the bus, … does not answer now: nothing is known, try again
    └── ImageNotFound        the registry or the Engine does not have the image

Messages read `cannot X: why`, lowercase, with the name in it. `hint` says what to do next.
"""

from __future__ import annotations


class UnitfleetError(Exception):
    """The root. `hint`, when there is one, is the next thing a user should try."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidName(UnitfleetError):
    """A name that breaks the naming rules (fleet's: `reference` in docs/nomenclature.md)."""


class InvalidConfig(UnitfleetError):
    """A configuration file, variable or flag that can't be used."""


class InvalidUnit(UnitfleetError):
    """A unit file that is refused. `problems` are ready for a person: `file:line: what, allowed, nearest`."""

    def __init__(self, message: str, problems: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class NotFound(UnitfleetError):
    """Nobody knows a unit, machine or context of that name."""


class Refused(UnitfleetError):
    """The present state forbids the command (a template started, a live machine removed)."""


class StoreError(UnitfleetError):
    """The store failed; the leaves say whether a write may have happened."""


class StoreUnavailable(StoreError):
    """No endpoint answered in time, and surely nothing was written."""


class OutcomeUnknown(StoreError):
    """A write was sent and no answer came: it may or may not have happened."""


class StoreFull(StoreError):
    """The store takes no more writes until an operator makes space (etcd's NOSPACE alarm)."""


class StoreDenied(StoreError):
    """The store refuses this identity what it asked for; nothing was read or written."""


class Compacted(StoreError):
    """The revision asked for was compacted away: list anew and watch from there."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"cannot read this revision: compacted up to {compact_revision}")
        self.compact_revision = compact_revision


class LeaseLost(StoreError):
    """The lease expired or was revoked; keys bound to it are gone."""


class BadRecord(StoreError):
    """A value in the store is not what its key promises (written by hand, or by a broken tool)."""


class DriverError(UnitfleetError):
    """A driver could not do what was asked. The message becomes the unit's `message`."""


class DriverUnavailable(DriverError):
    """What the driver works through does not answer now: nothing is concluded, it is tried again."""


class ImageNotFound(DriverError):
    """Neither the Engine nor the registry has the image."""
