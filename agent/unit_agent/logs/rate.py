"""How much of a unit's output is kept: a cap in lines and bytes a second, so that none takes the agent's time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unitfleet import quantities
from unitfleet.errors import InvalidConfig
from unitfleet.problems import BadValue

_RATE = re.compile(r"([0-9]{1,9})\s*,\s*(\S+)")
TELL_S = 1.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Lines and bytes a second."""

    lines: int
    size: int

    @classmethod
    def read(cls, text: str) -> Rate:
        """Read `LINES,BYTES`; raises `InvalidConfig`."""
        match = _RATE.fullmatch(text.strip())
        try:
            found = cls(int(match[1]), quantities.size(match[2])) if match else None
        except BadValue:
            found = None
        if found is None or not found.lines or not found.size:
            hint = "lines and bytes a second of one unit: 50000,32M"
            raise InvalidConfig(f"cannot use log-rate: {text!r} is no rate", hint=hint)
        return found

    def __str__(self) -> str:
        return f"{self.lines} lines or {self.size} bytes a second"


class RateCap:
    """Lets through what comes at no more than the rate, with a second's worth at once. Times are the caller's.

    Once it drops, it does until half a second's worth is free: a flood has few gaps, and what stands between them
    is whole. The times of `admit` and `drops` may be of another clock than `account`'s: when lines were written,
    so that nothing is dropped for being read late.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._lines = float(rate.lines)
        self._size = float(rate.size)
        self._at = now
        self._over = False
        self._lost = 0
        self._lost_size = 0
        self._told_at = now

    def drops(self, at: float) -> bool:
        """Tell whether what is written at this time is dropped."""
        passed, self._at = max(0.0, at - self._at), at
        self._lines = min(self._rate.lines, self._lines + passed * self._rate.lines)
        self._size = min(self._rate.size, self._size + passed * self._rate.size)
        share = 0.5 if self._over else 0.0
        self._over = self._lines <= share * self._rate.lines or self._size <= share * self._rate.size
        return self._over

    def dropped(self, lines: int, size: int) -> None:
        """Count what was dropped."""
        self._lost += lines
        self._lost_size += size

    def admit(self, lines: int, size: int, at: float) -> bool:
        """Tell whether a batch is let through, whole, or dropped."""
        if self.drops(at):
            self.dropped(lines, size)
            return False
        self._lines -= lines
        self._size -= size
        return True

    @property
    def owes_account(self) -> bool:
        """Tell whether something was dropped that was not told yet."""
        return self._lost > 0

    def account(self, now: float, *, at_once: bool = False) -> str:
        """Return what was dropped since the last time, for the reader; "" when nothing was, or it is too soon."""
        if not self._lost or (now - self._told_at < TELL_S and not at_once):
            return ""
        text = f"at least {self._lost} lines ({self._lost_size} bytes) were dropped here: more than {self._rate}"
        self._lost = self._lost_size = 0
        self._told_at = now
        return text
