"""The parts of a podman command line that the kinds of files share."""

from __future__ import annotations

from collections.abc import Mapping

from unitfleet.podman.files import Source
from unitfleet.podman.text import Refused

BINARY = "/usr/bin/podman"


class Command:
    """A command line that grows, out of the keys of one file."""

    def __init__(self, source: Source, *verb: str) -> None:
        """Begin with podman, what it takes before its verb, and the verb."""
        self.source, self.text, self.group = source, source.text, source.group
        self.words = [BINARY]
        self.words += [f"--module={module}" for module in self.text.all(self.group, "ContainersConfModule")]
        self.words += self.text.all_arguments(self.group, "GlobalArgs")
        self.words += verb

    def add(self, *words: str) -> None:
        """Add words."""
        self.words += words

    def last(self, key: str, option: str) -> None:
        """Add an option with the last value of a key, if it has one."""
        if value := self.text.text(self.group, key):
            self.add(option, value)

    def each(self, key: str, option: str) -> None:
        """Add an option for every value of a key."""
        for value in self.text.all(self.group, key):
            self.add(option, value)

    def each_word(self, key: str, option: str) -> None:
        """Add an option for every word of a key."""
        for word in self.text.all_plain(self.group, key):
            self.add(option, word)

    def each_argument(self, key: str, option: str, prefix: str = "") -> None:
        """Add an option for every word of a key, escapes read."""
        for word in self.text.all_arguments(self.group, key):
            self.add(option, prefix + word)

    def flag(self, key: str, option: str) -> None:
        """Add an option for yes, `option=false` for no."""
        said = self.text.boolean(self.group, key)
        if said is not None:
            self.add(option if said else f"{option}=false")

    def pairs(self, key: str, option: str) -> None:
        """Add an option for every `key=value` of a key, in the order of their names."""
        for name, value in sorted(self.text.pairs(self.group, key).items()):
            self.add(option, name if value is None else f"{name}={value}")

    def options(self, options: Mapping[str, str]) -> None:
        """Add `last` for each key."""
        for key, option in options.items():
            self.last(key, option)

    def podman_args(self) -> None:
        """Add what the file says to podman itself."""
        self.words += self.text.all_arguments(self.group, "PodmanArgs")

    def image(self, name: str, needs: Needs) -> str:
        """Return an image's name; one that is a file beside this one is needed first."""
        if not name.endswith((".image", ".build")):
            return name
        found = self.source.sibling(name, f"requested Quadlet image {name} was not found")
        needs.append(found.service)
        return found.resource


Needs = list[str]
"""Services that a service requires and comes after."""


def storage(source: Source, text: str, needs: Needs, mounts: list[str], *, images: bool) -> str:
    """Return the source of a mount: a path, a volume's name or, of a file beside this one, what it is called."""
    if text.startswith("."):
        text = source.absolute(text)
    if text.startswith("/"):
        mounts.append(text)
    elif text.endswith(".volume") or (images and text.endswith((".image", ".build"))):
        found = source.sibling(text, f"requested Quadlet source {text} was not found")
        needs.append(found.service)
        return found.resource
    return text


def port(text: str) -> str:
    """Return a port or a range to expose; refused for anything else."""
    number, _, protocol = text.strip().partition("/")
    low, dash, high = number.rpartition("-")
    if protocol not in ("", "tcp", "udp") or not high.isdecimal() or (dash and not low[-1:].isdecimal()):
        raise Refused(f"invalid port format '{text.strip()}'")
    return text.strip()
