"""What a host does about its warm set, and whether it is ready: pure functions of what was told and seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unitfleet.model import Images, WarmSet

STEP = 5
"""Percent of a pull that are worth telling."""

MOST_TOLD = 200
"""Characters of why an image is missing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image could not be pulled, so many times in a row, and when to try again (loop time, seconds).

    `absent`: its registry answered that there is no such image.
    """

    why: str
    count: int
    again_at: float
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What is here of a warm set. `pulling`: percent; an image that waits for a slot is not in it."""

    held: frozenset[str] = frozenset()
    pulling: Mapping[str, int] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    trouble: str = ""  # why the Engine can't be asked


def to_pull(wanted: WarmSet, seen: Seen, underway: frozenset[str], now: float) -> tuple[str, ...]:
    """Return the images to begin to pull now: lacking, their turn, not begun, and not failed a moment ago."""
    return tuple(
        image
        for image in wanted.turns
        if image not in seen.held
        and image not in underway
        and (image not in seen.failures or seen.failures[image].again_at <= now)
    )


def next_look(wanted: WarmSet, seen: Seen, now: float, most_s: float) -> float:
    """Return in how many seconds an image may be tried again, at most `most_s`."""
    due = [seen.failures[image].again_at - now for image in wanted.turns if image in seen.failures]
    return min([most_s, *(max(0.05, wait) for wait in due)])


def told(machine: str, wanted: WarmSet, seen: Seen) -> Images:
    """Return what to tell of the warm set."""
    return Images(
        id=machine,
        held=tuple(image for image in wanted.images if image in seen.held),
        pulling={
            image: seen.pulling[image] // STEP * STEP
            for image in wanted.images
            if image in seen.pulling and image not in seen.held
        },
        layers={
            image: seen.layers[image] for image in wanted.images if image in seen.pulling and image in seen.layers
        },
        missing={
            image: _why(image, seen)
            for image in wanted.images
            if image not in seen.held and image not in seen.pulling
        },
    )


def lacks(wanted: WarmSet | None, nonce: str, seen: Seen) -> str:
    """Return what keeps a new machine from taking containers, "" when it holds its warm set.

    A warm set that was made for another agent process may be of long ago: it is no answer. An image that does not
    exist is not waited for: one unit with a slip in its Image= must not keep every new machine out.
    """
    if seen.trouble:
        return seen.trouble
    if wanted is None or wanted.nonce != nonce:
        return "waits to be told its warm set"
    held = sum(image in seen.held for image in wanted.images)
    awaited = [image for image in wanted.images if image not in seen.held and not _absent(image, seen)]
    return f"{held} of {len(wanted.images)} images" if awaited else ""


def missing_text(wanted: WarmSet | None, seen: Seen) -> str:
    """Return in one sentence which images are not here, and why."""
    lacking = [image for image in wanted.images if image not in seen.held] if wanted else []
    shown = [f"{image}: {_why(image, seen) or _reached(image, seen)}" for image in lacking[:3]]
    more = f", and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return "; ".join(shown) + more


def _reached(image: str, seen: Seen) -> str:
    return f"{seen.pulling[image]} % of it pulled" if image in seen.pulling else "not pulled yet"


def _absent(image: str, seen: Seen) -> bool:
    return image in seen.failures and seen.failures[image].absent


def _why(image: str, seen: Seen) -> str:
    """Return the cause of a failure with how often it came, so that each one is news; "" before any."""
    failure = seen.failures.get(image)
    if failure is None:
        return ""
    times = f" (tried {failure.count} times)" if failure.count > 1 else ""
    return failure.why[:MOST_TOLD] + times
