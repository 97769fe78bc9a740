"""How long random searches go on: `scripts/test --fast` looks at fewer examples, never at fewer claims."""

from __future__ import annotations

import os

FEW = os.environ.get("UNITFLEET_TESTS") == "few"


def examples(many: int, few: int) -> int:
    """Return how many examples a search looks at."""
    return few if FEW else many
