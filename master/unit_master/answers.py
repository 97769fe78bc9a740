"""Errors as the API says them: a word for programs, a status of HTTP, and the words for people."""

from __future__ import annotations

from unit_master.wishes import Conflict
from unitfleet.api import ErrorBody
from unitfleet.errors import (
    InvalidName,
    InvalidUnit,
    NotFound,
    OutcomeUnknown,
    Refused,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UnitfleetError,
)

_CODES: tuple[tuple[type[UnitfleetError], str], ...] = (
    (InvalidName, "invalid_name"),
    (InvalidUnit, "invalid_unit"),
    (NotFound, "not_found"),
    (Conflict, "conflict"),
    (Refused, "refused"),
    (StoreUnavailable, "unavailable"),
    (OutcomeUnknown, "unknown_outcome"),
    (StoreFull, "full"),
    (StoreError, "store"),
)

_HINTS = {
    "unavailable": "what runs goes on running; try again when the store answers (unitctl cluster status)",
    "unknown_outcome": "look at how it stands now before you try again (unitctl list-units)",
    "full": "the store is out of space: compact and defragment it, then disarm its alarm",
}

STATUS = {
    "invalid_name": 400,
    "invalid_unit": 400,
    "invalid_request": 400,
    "denied": 401,
    "expired": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "not_yet": 409,
    "refused": 409,
    "too_large": 413,
    "unsupported_media": 415,
    "misdirected": 421,
    "too_many": 429,
    "internal": 500,
    "store": 502,
    "agent": 502,
    "unavailable": 503,
    "busy": 503,
    "unknown_outcome": 504,
    "timeout": 504,
    "full": 507,
}
"""The HTTP status of each code (docs/api.md)."""


def error_body(error: UnitfleetError) -> ErrorBody:
    """Return what a client is told of an error."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "internal")
    problems = error.problems if isinstance(error, InvalidUnit) else ()
    return ErrorBody(code=code, message=error.message, hint=error.hint or _HINTS.get(code, ""), problems=problems)
