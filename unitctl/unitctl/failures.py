"""What ends a command other than well, each with its exit code.

0 ok · 1 failure · 2 usage · 3 not placed · 4 not found · 5 conflict · 6 denied · 7 cannot reach the API ·
8 timed out · 130 interrupted. `unitctl.__main__` alone turns them into text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from unitfleet.errors import (
    InvalidConfig,
    InvalidName,
    InvalidUnit,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
    UnitfleetError,
)

OK, FAILURE, USAGE, NOT_PLACED, NOT_FOUND, CONFLICT, DENIED, UNREACHABLE, TIMED_OUT = range(9)
INTERRUPTED = 130

# Which code speaks for a command that failed in several ways: a broken unit before a busy fleet.
_WORST_FIRST = (INTERRUPTED, UNREACHABLE, DENIED, FAILURE, CONFLICT, NOT_FOUND, USAGE, TIMED_OUT, NOT_PLACED)


class Failure(UnitfleetError):
    """An error with more to say: `details` are lines under it, `see` is the command that tells more."""

    exit_code: ClassVar[int] = FAILURE

    def __init__(
        self, message: str, *, hint: str | None = None, details: Sequence[str] = (), see: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.details = tuple(details)
        self.see = see


class NotPlaced(Failure):
    """No machine takes the unit for now; its target stays as wanted."""

    exit_code = NOT_PLACED


class Conflict(Failure):
    """Another text or revision stands where this command wanted to write."""

    exit_code = CONFLICT


class Denied(Failure):
    """The API does not accept the token, or its role may not do this."""

    exit_code = DENIED


class Unreachable(Failure):
    """No endpoint of the API gave an answer."""

    exit_code = UNREACHABLE


class TimedOut(Failure):
    """The wait ended before the units were as wanted."""

    exit_code = TIMED_OUT


class Detached(Failure):
    """The user stopped waiting; the work goes on."""

    exit_code = INTERRUPTED


class Several(UnitfleetError):
    """More than one failure in one command."""

    def __init__(self, failures: Sequence[UnitfleetError]) -> None:
        super().__init__(f"{len(failures)} failures")
        self.failures = tuple(failures)


def raise_all(failures: Sequence[UnitfleetError]) -> None:
    """Raise what failed: nothing, the one failure, or `Several`."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise Several(failures)


def exit_code(error: UnitfleetError) -> int:
    """Say with which code `unitctl` ends for an error."""
    match error:
        case Several():
            codes = {exit_code(failure) for failure in error.failures}
            return next((code for code in _WORST_FIRST if code in codes), FAILURE)
        case Failure():
            return error.exit_code
        case InvalidName() | InvalidConfig():
            return USAGE
        case NotFound():
            return NOT_FOUND
        case StoreUnavailable() | OutcomeUnknown():
            return UNREACHABLE
        case _:
            return FAILURE


def details(error: UnitfleetError) -> tuple[str, ...]:
    """The lines under an error."""
    match error:
        case Failure():
            return error.details
        case InvalidUnit():
            return tuple(problem for problem in error.problems if problem not in error.message)
        case _:
            return ()
