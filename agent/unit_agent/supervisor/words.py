"""What systemd does with the words of an Exec line and with environment files, when a command starts.

systemd.service(5) "Command lines", systemd.exec(5) EnvironmentFile=, and src/basic/env-util.c and env-file.c
where those are silent.
"""

from __future__ import annotations

_SPACE = " \t\n\r"


def expand(words: list[str], environment: dict[str, str]) -> list[str]:
    """Return the arguments: `$NAME` as a word splits, `${NAME}` does not, `$$` is a dollar, unset is empty.

    The first word is the program and stays as it is. `$NAME` inside a word is no variable.
    """
    arguments = words[:1]
    for word in words[1:]:
        if word.startswith("$") and word[1:2] not in ("{", "$", ""):
            arguments.extend(split(environment.get(word[1:], "")))
        else:
            arguments.append(_replace(word, environment))
    return arguments


def _replace(word: str, environment: dict[str, str]) -> str:
    parts = []
    at = 0
    while (dollar := word.find("$", at)) >= 0:
        parts.append(word[at:dollar])
        end = word.find("}", dollar)
        if word.startswith("$$", dollar):
            parts.append("$")
            at = dollar + 2
        elif word.startswith("${", dollar) and end > 0:
            parts.append(environment.get(word[dollar + 2 : end], ""))
            at = end + 1
        else:
            parts.append("$")
            at = dollar + 1
    return "".join(parts) + word[at:]


def split(text: str) -> list[str]:
    """Split a variable's value at white space; quotes hold words together and are removed."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    for letter in text:
        if quote:
            if letter == quote:
                quote = ""
            elif word is not None:
                word.append(letter)
        elif letter in "'\"":
            quote = letter
            word = word if word is not None else []
        elif letter in _SPACE:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word if word is not None else []
            word.append(letter)
    if word is not None:
        words.append("".join(word))
    return words


def parse_environment(text: str) -> dict[str, str]:
    """Read the text of an environment file; lines that assign nothing to a valid name are left out."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
        elif text[at] in "#;":
            at = _line_end(text, at)
        else:
            equals, end = text.find("=", at), text.find("\n", at)
            if equals < 0 or 0 <= end < equals:
                at = _line_end(text, at)
                continue
            name = text[at:equals].strip()
            value, at = _value(text, equals + 1)
            if name.isidentifier() and name.isascii():
                found[name] = value
    return found


def _line_end(text: str, at: int) -> int:
    """Return where a line ends that assigns nothing; a backslash carries it on, in comments too."""
    while at < len(text) and text[at] != "\n":
        at += 2 if text[at] == "\\" else 1
    return at


def _value(text: str, at: int) -> tuple[str, int]:
    """Read one value from `at`, up to the end of its line; returns it and where the line ends."""
    kept: list[str] = []
    firm = 0  # how much of `kept` is quoted or escaped, or followed by something that is not white space
    while at < len(text) and text[at] in " \t":
        at += 1
    while at < len(text) and text[at] != "\n":
        letter = text[at]
        at += 1
        if letter == "\\":
            if text[at : at + 1] not in ("\n", ""):
                kept.append(text[at])
            at += 1
            firm = len(kept)
        elif letter in "'\"":
            at = _quoted(text, at, letter, kept)
            firm = len(kept)
        else:
            kept.append(letter)
            if letter not in _SPACE:
                firm = len(kept)
    return "".join(kept[:firm]), at


def _quoted(text: str, at: int, quote: str, kept: list[str]) -> int:
    while at < len(text) and text[at] != quote:
        if text[at] == "\\" and quote == '"':
            escaped = text[at + 1 : at + 2]
            if escaped not in ('"', "\\", "`", "$", "\n", ""):
                kept.append("\\")
            if escaped != "\n":
                kept.append(escaped)
            at += 2
        else:
            kept.append(text[at])
            at += 1
    return at + 1
