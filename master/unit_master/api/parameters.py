"""Parameters of a query, and the forms they have: what the description says of them, and handlers hold them to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unit_master.archive.query import EVER
from unitfleet.logquery import MOST_LINES

Form = Mapping[str, Any]
"""What a value looks like, as JSON Schema."""

TEXT: Form = {"type": "string"}
FLAG: Form = {"type": "boolean"}
MOMENT: Form = {"type": "number", "minimum": 0, "maximum": EVER}
NUMBER: Form = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def up_to(most: int) -> Form:
    """Return the form of a number that is at most so large."""
    return {**NUMBER, "maximum": most}


LINES: Form = {"anyOf": [up_to(MOST_LINES), {"const": "all"}]}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its name, what it does, and its form."""

    name: str
    does: str
    form: Form = field(default_factory=lambda: TEXT)
