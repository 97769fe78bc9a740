"""The `## assert-…` lines in a file: what Podman's own tests say of the service that Quadlet makes of it.

Source of the verbs: test/e2e/quadlet_test.go. A line that begins with `##` holds a verb and its words as a shell
splits them; `!` before the verb turns it round.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unitfleet.podman.text import Refused, Text

_COMMANDS = {"": "ExecStart", "pre-": "ExecStartPre", "stop-": "ExecStop", "stop-post-": "ExecStopPost"}
_COMMANDS["reload-"] = "ExecReload"
_ARGUMENTS = re.compile(
    r"assert-podman-(?P<command>pre-|stop-post-|stop-|reload-|)(?P<part>global-|final-|)args"
    r"(?P<way>-regex|-key-val-regex|-key-val|)"
)

Matches = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Assertion:
    """One line. `line` counts from 1."""

    line: int
    verb: str
    words: tuple[str, ...]
    inverted: bool = False

    def __str__(self) -> str:
        """Write it as it stands in a file."""
        return f"{'!' * self.inverted}{shlex.join((self.verb, *self.words))}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: the service's text, or the words of the refusal; and what was said beside."""

    service: Text | None
    said: str


def read(text: str) -> list[Assertion]:
    """Return the assertions of a file; other `##` lines are comments."""
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("##"):
            continue
        try:
            words = shlex.split(line[2:])
        except ValueError:
            continue
        if words and words[0].removeprefix("!").startswith("assert-"):
            rest = tuple(word.replace("\\n", "\n").replace("\\t", "\t") for word in words[1:])
            found.append(Assertion(number, words[0].removeprefix("!"), rest, words[0].startswith("!")))
    return found


def failed(assertion: Assertion, outcome: Outcome) -> str | None:
    """Return why an assertion does not hold, or None."""
    verb, words = assertion.verb, assertion.words
    if verb == "assert-failed":
        holds = outcome.service is None
    elif verb == "assert-stderr-contains":
        holds = bool(words) and words[0] in outcome.said
    elif outcome.service is None:
        return f"there is no service: {outcome.said}"
    else:
        check = _check(verb)
        if check is None:
            return f"unknown verb {verb}"
        try:
            holds = check(words, outcome.service)
        except (IndexError, re.error):
            return "it can't be read"
    if holds is not assertion.inverted:
        return None
    return _found(verb, words, outcome)


def _found(verb: str, words: Sequence[str], outcome: Outcome) -> str:
    """Say what is there in place of what was asserted."""
    if outcome.service is None:
        return f"it was refused: {outcome.said}"
    match = _ARGUMENTS.fullmatch(verb)
    if match is not None:
        return f"it is {shlex.join(outcome.service.last_arguments('Service', _COMMANDS[match['command']]))}"
    if verb.startswith("assert-symlink"):
        return "it is " + ", ".join(
            f"{link} → {target}" for link, target in sorted(links(outcome.service).items())
        )
    if len(words) > 1:
        return "it is " + (shlex.join(outcome.service.all(words[0], words[1])) or "not there")
    return f"there is a service: {outcome.said or 'nothing was said'}"


def _check(verb: str) -> Callable[[Sequence[str], Text], bool] | None:
    match = _ARGUMENTS.fullmatch(verb)
    if match is None:
        return _KEYS.get(verb)
    key, part, way = _COMMANDS[match["command"]], match["part"], match["way"]
    matches = _regex if way.endswith("regex") else _same

    def check(words: Sequence[str], service: Text) -> bool:
        arguments = service.last_arguments("Service", key)
        if part == "final-":
            return len(words) <= len(arguments) and _at(arguments, len(arguments) - len(words), words, matches)
        if part == "global-":  # the words after the first are to stand before it
            if words[0] not in arguments:
                return False
            arguments, words = arguments[: arguments.index(words[0])], words[1:]
        if way.startswith("-key-val"):
            return _has_pairs(arguments, words, matches)
        return bool(words) and any(_at(arguments, start, words, matches) for start in range(len(arguments)))

    return check


def _at(arguments: Sequence[str], start: int, words: Sequence[str], matches: Matches) -> bool:
    there = arguments[start : start + len(words)]
    return len(there) == len(words) and all(map(matches, words, there))


def _has_pairs(arguments: Sequence[str], words: Sequence[str], matches: Matches) -> bool:
    option, separator, wanted = words[0], words[1], _pairs(words[2], words[1])
    for index, argument in enumerate(arguments[:-1]):
        there = _pairs(arguments[index + 1], separator) if argument == option else None
        if there is not None and there.keys() == wanted.keys():
            if all(matches(value, there[key]) for key, value in wanted.items()):
                return True
    return False


def _pairs(text: str, separator: str) -> dict[str, str]:
    fields = next(csv.reader([text], delimiter=separator[0]), [])
    return {key: value for key, _, value in (field.partition("=") for field in fields)}


def _same(wanted: str, there: str) -> bool:
    return wanted == there


def _regex(wanted: str, there: str) -> bool:
    return re.search(wanted, there) is not None


def _key_is(matches: Matches) -> Callable[[Sequence[str], Text], bool]:
    def check(words: Sequence[str], service: Text) -> bool:
        there = service.all(words[0], words[1])
        return len(there) == len(words) - 2 and all(map(matches, words[2:], there))

    return check


def _last_contains(words: Sequence[str], service: Text) -> bool:
    return words[2] in (service.last(words[0], words[1]) or "")


_KEYS: dict[str, Callable[[Sequence[str], Text], bool]] = {
    "assert-key-is": _key_is(_same),
    "assert-key-is-regex": _key_is(_regex),
    "assert-key-is-empty": lambda words, service: not service.all(words[0], words[1]),
    "assert-has-key": lambda words, service: service.last(words[0], words[1]) is not None,
    "assert-key-contains": _last_contains,
    "assert-last-key-contains": _last_contains,
    "assert-key-not-contains": lambda words, service: not _last_contains(words, service),
    "assert-last-key-is-regex": lambda words, service: _regex(words[2], service.last(words[0], words[1]) or ""),
    "assert-symlink": lambda words, service: links(service).get(words[0]) == words[1],
}


def links(service: Text) -> dict[str, str]:
    """Return the links that `[Install]` asks for, by their place beside the service."""
    name = service.filename
    stem, _, ending = name.rpartition(".")
    prefix, at, instance = stem.partition("@")
    found = {_plain_path(word): name for word in service.all_plain("Install", "Alias")}
    if at and not instance:
        instance = service.text("Install", "DefaultInstance")
        name = f"{prefix}@{instance}.{ending}" if instance else ""
    for key, folder in (("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")):
        for word in service.all_plain("Install", key):
            if name and "/" not in word:
                found[f"{word}.{folder}/{name}"] = service.filename
    return {link: "../" * link.count("/") + target for link, target in found.items()}


def _plain_path(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def refused(error: Refused) -> Outcome:
    """Return the outcome of a file that no service is made of."""
    return Outcome(None, str(error))
