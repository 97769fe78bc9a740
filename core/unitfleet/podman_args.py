"""`PodmanArgs=`: options for podman itself, read as the keys of `[Container]` that mean the same."""

from __future__ import annotations

from unitfleet.problems import Problems
from unitfleet.quadlet_keys import CONTAINER, Takes
from unitfleet.quoting import UnbalancedQuote, split_words
from unitfleet.unitfile import Option

_SECTION = "Container"
_SHORT = {
    "-e": "--env",
    "-v": "--volume",
    "-p": "--publish",
    "-l": "--label",
    "-h": "--hostname",
    "-u": "--user",
    "-w": "--workdir",
    "-m": "--memory",
}
_KEYS = {
    **{key.podman: key for key in CONTAINER.values() if key.podman.startswith("--") and " " not in key.podman},
    "--volume": CONTAINER["Volume"],
    "--user": CONTAINER["User"],
    "--tmpfs": CONTAINER["Tmpfs"],
    "--http-proxy": CONTAINER["HttpProxy"],
}
_SECURITY = {
    key.podman.removeprefix("--security-opt").lstrip(" ="): key
    for key in CONTAINER.values()
    if key.podman.startswith("--security-opt")
}
_NOT_READ = frozenset(("--sdnotify", "--pod", "--cgroups"))  # podman's own words for what the keys mean


def expand(options: tuple[Option, ...], problems: Problems) -> tuple[Option, ...]:
    """Put the keys in the place of the options that have one; what has none is warned of."""
    found: list[Option] = []
    for option in options:
        if (option.section, option.name) != (_SECTION, "PodmanArgs"):
            found.append(option)
            continue
        try:
            words = split_words(option.value)
        except UnbalancedQuote as error:
            problems.error(option.line, f"PodmanArgs=: {error}")
            continue
        while words:
            key, value, shown = _take(words)
            if key == "":
                hint = CONTAINER["PodmanArgs"].hint
                problems.warn(option.line, f"PodmanArgs=: {shown[:60]!r} has no effect", hint)
            else:
                found.append(Option(_SECTION, key, value, option.line))
    return tuple(found)


def _take(words: list[str]) -> tuple[str, str, str]:
    """Take an option with its value off the words: the key ("" for none), the value, and the option itself."""
    first = words.pop(0)
    if first[:2] in _SHORT and len(first) > 2:
        words.insert(0, first[2:].removeprefix("="))
        first = first[:2]
    name, equals, value = _SHORT.get(first, first).partition("=")
    if name == "--security-opt":
        value = value if equals else (words.pop(0) if words else "")
        return *_security(value), f"{name} {value}"
    key = _KEYS.get(name)
    if key is None or name in _NOT_READ:
        if not equals and words and not words[0].startswith("-"):
            value = words.pop(0)  # the value of an option that we don't know
        return "", "", first
    if key.takes is Takes.YES_NO:
        return key.name, value if equals else "yes", name
    if not equals:
        value = words.pop(0) if words else ""
    return key.name, _written(value, key.takes), name


def _security(value: str) -> tuple[str, str]:
    for word, key in _SECURITY.items():
        if value == word:
            return key.name, "yes"
        if word.endswith(("=", ":")) and value.startswith(word):
            return key.name, _written(value.removeprefix(word), key.takes)
    return "", ""


def _written(value: str, takes: Takes) -> str:
    """Write a word as the key takes it: quoted where its values are split into words."""
    if takes in (Takes.LAST, Takes.LINES):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
