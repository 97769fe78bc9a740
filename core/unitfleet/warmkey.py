"""`Warm=` in `[X-Fleet]`: whether machines that could run the unit hold its image before they are ready."""

from __future__ import annotations

from unitfleet.problems import BadValue
from unitfleet.section import Section
from unitfleet.spec import ContainerSpec

_YES = frozenset("yes true on 1 y t".split())
_NO = frozenset("no false off 0 n f".split())


def read(section: Section, container: ContainerSpec | None) -> bool:
    """Read `Warm=` of `[X-Fleet]`; yes when nothing is said. A unit that pulls nothing is refused the key."""
    option = section.last("Warm")
    if option is not None and container is None:
        section.problems.error(
            option.line, "Warm= is for units that pull an image", "leave it out, or describe a [Container]"
        )
    return section.get("Warm", _yes_or_no, True)


def _yes_or_no(text: str) -> bool:
    word = text.strip('"').lower()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise BadValue(f"{text[:40]!r} is neither yes nor no: write Warm=no to start without a warm image")
