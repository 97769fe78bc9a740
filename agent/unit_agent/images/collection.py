"""Which images may be removed when Docker's disk fills, in which order: a pure function of what is there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

LOW_BELOW = 10
"""Images are removed until so many percent less are used than where it began."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this host. `tags` and `digests` are its names; `used` is when it was last (seconds since 1970).

    `brought` are the references that our pulls brought it by, () when it came by another way.
    """

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    used: float = 0.0
    brought: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it."""
        return next(iter((*self.tags, *self.brought, *self.digests)), self.id[:19])


@dataclass(frozen=True, slots=True)
class Verdict:
    """An image with why it stays; `why` "" means that it may go."""

    image: Image
    why: str


def judge(
    images: Iterable[Image], *, in_use: Collection[str], wanted: Collection[str], everything: bool
) -> tuple[Verdict, ...]:
    """Return a verdict on every image; those that may go come first, the one unused for longest before all.

    `in_use` and `wanted` are ids. With `everything` also an image that we did not pull may go.
    """
    verdicts = [Verdict(image, _stays(image, in_use, wanted, everything)) for image in images]
    return tuple(sorted(verdicts, key=lambda verdict: (bool(verdict.why), verdict.image.used, verdict.image.id)))


def _stays(image: Image, in_use: Collection[str], wanted: Collection[str], everything: bool) -> str:
    if image.id in in_use:
        return "in use by a container"
    if image.id in wanted:
        return "wanted here"
    if everything:
        return ""
    if not image.brought:
        return "not pulled by this agent"
    foreign = set(image.tags) - {familiar(reference) for reference in image.brought}
    return f"named {min(foreign)} by somebody else" if foreign else ""


def familiar(reference: str) -> str:
    """Return a reference as the Engine lists it: without what it takes for granted, with its tag."""
    name = reference.removeprefix("docker.io/").removeprefix("library/")
    last = name.rpartition("/")[2]
    return name if ":" in last or "@" in last else f"{name}:latest"


def kept_text(verdicts: Iterable[Verdict]) -> str:
    """Say why the images that stay do, each reason with how many."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.why:
            why = "named by somebody else" if verdict.why.startswith("named") else verdict.why
            counts[why] = counts.get(why, 0) + 1
    return ", ".join(f"{count} {why}" for why, count in sorted(counts.items())) or "there are none"
