"""Fuzzing for so many seconds: real inputs, edited again and again, each with a bound on the time it may take.

Hypothesis draws the edits, so that what fails is told in its smallest form. The seeds are fixed: two runs look at
the same inputs, a longer one at more of them.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.effort import FEW

T = TypeVar("T")

FUZZ_S = 0.4 if FEW else 30.0
"""For each parser."""

HANG_S = 5.0
"""Of processor time, which a busy host does not make longer: whoever takes more hangs."""

ROUND = 200
"""Inputs of one seed."""

MOST_EDITS = 6


class Hung(AssertionError):
    """One input took longer than any may."""


def fuzz(inputs: SearchStrategy[T], target: Callable[[T], None], seconds: float = FUZZ_S) -> int:
    """Give inputs to `target`, which raises what is wrong, until the time is over; return how many they were."""
    until = time.monotonic() + seconds
    tried = rounds = 0
    while time.monotonic() < until:
        rounds += 1

        @seed(rounds)
        @settings(
            max_examples=ROUND,
            phases=[Phase.generate, Phase.shrink],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def look(value: T) -> None:
            nonlocal tried
            tried += 1
            with within(HANG_S):
                target(value)

        look()
    return tried


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Hung` after so much processor time; expressions are interrupted, too."""

    def hang(*_: object) -> None:
        raise Hung(f"it takes longer than {seconds:g} s")

    former = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, former)


def edited(seeds: Sequence[str], tokens: Sequence[str], *, apart: str = "") -> SearchStrategy[str]:
    """Return texts that come of `seeds` by edits: pieces taken out, doubled, moved, or another's; tokens put in.

    With `apart` half of the edits take whole pieces between it, as lines.
    """
    where = st.integers(0, 1 << 20)
    put_in = st.one_of(st.sampled_from(tokens), st.text(max_size=8), st.sampled_from(seeds))
    edits = st.lists(st.tuples(st.integers(0, 5), st.booleans(), where, where, put_in), max_size=MOST_EDITS)
    return st.tuples(st.sampled_from(seeds), edits).map(lambda drawn: _edit(*drawn, apart=apart))


def _edit(text: str, edits: Sequence[tuple[int, bool, int, int, str]], *, apart: str) -> str:
    for kind, by_piece, first, second, other in edits:
        pieces: list[str] = text.split(apart) if apart and by_piece else list(text)
        begin = first % (len(pieces) + 1)
        end = begin + second % (8 if second % 3 else len(pieces) + 1)
        match kind:
            case 0:
                pieces[begin:end] = []
            case 1:
                pieces[begin:begin] = pieces[begin:end]
            case 2:
                pieces[begin:end] = [other]
            case 3:
                pieces[begin:begin] = [other]
            case 4:
                pieces[begin:begin] = [other] * (1 + second % 300)
            case 5:
                pieces = [*pieces[end:], *pieces[begin:end], *pieces[:begin]]
        text = (apart if apart and by_piece else "").join(pieces)
    return text
