"""What figures should come to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aim:
    """What a median should come to; `sign` is "<=" or ">="."""

    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        """Tell whether a figure is good enough."""
        return value <= self.bound if self.sign == "<=" else value >= self.bound


def at_most(bound: float) -> Aim:
    """Return the aim of a figure that should be small."""
    return Aim("<=", bound)


def at_least(bound: float) -> Aim:
    """Return the aim of a figure that should be large."""
    return Aim(">=", bound)
