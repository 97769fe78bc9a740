"""What an agent is told of its copies' health besides what their drivers see."""

from __future__ import annotations

from typing import Protocol

from unit_agent.driver import Copy
from unitfleet.api import HealthOutput


class HealthSource(Protocol):
    """Knows how the checks of copies went. Both are answered at once."""

    def health(self, copy: Copy) -> tuple[str, str] | None:
        """Return `starting`, `healthy` or `unhealthy` with why ("" for healthy); None where nothing asks."""
        ...

    def outputs(self, unit: str) -> tuple[HealthOutput, ...]:
        """Return what the last checks of a unit said, oldest first."""
        ...


class NoChecks:
    """Nothing is asked."""

    def health(self, copy: Copy) -> tuple[str, str] | None:
        """Return None."""
        return None

    def outputs(self, unit: str) -> tuple[HealthOutput, ...]:
        """Return nothing."""
        return ()
