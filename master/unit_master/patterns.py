"""Patterns on unit names, as Conflicts=, Replaces= and Avoid= have them: a glob (Go's path.Match), or a name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from unitfleet.names import glob_match

_globbed = lru_cache(maxsize=1 << 16)(glob_match)  # a pass asks for the same few pairs on every host


def names_any(patterns: Iterable[str], name: str) -> bool:
    """Say whether any of the patterns names the unit."""
    return any(_globbed(pattern, name) if _is_glob(pattern) else pattern == name for pattern in patterns)


@lru_cache(maxsize=1 << 12)
def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[\\")
