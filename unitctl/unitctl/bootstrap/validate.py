"""What is wrong with user-data, by our own reading: each finding with its line.

cloud-init's own schema says more where it is installed; this says what cloud-init cannot know: whether our
settings in it are such, and whether the units in it would be taken.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable

from unitctl.bootstrap import contents
from unitctl.bootstrap.cloudinit_keys import KEYS
from unitctl.bootstrap.userdata import HEADER, MOST_BYTES
from unitctl.bootstrap.yamltree import BadYaml, Mapping, Node, Scalar, Sequence, read
from unitfleet.problems import Problem, Problems, nearest

JINJA = "## template: jinja"

_FILE_KEYS = ("path", "content", "permissions", "owner", "encoding", "append", "defer", "source")
_ENCODINGS: dict[str, frozenset[str]] = {
    "": frozenset(),
    "text/plain": frozenset(),
    **dict.fromkeys(("b64", "base64"), frozenset({"b64"})),
    **dict.fromkeys(("gz", "gzip"), frozenset({"gz"})),
    **dict.fromkeys(("gz+b64", "gz+base64", "gzip+b64", "gzip+base64"), frozenset({"gz", "b64"})),
}
_MODE = re.compile(r"0?[0-7]{3,4}")
_MOST_UNPACKED = 256 * 1024


def validate(raw: bytes) -> list[Problem]:
    """Return what is wrong, in the order of its lines."""
    problems = Problems()
    if len(raw) > MOST_BYTES:
        problems.error(
            0, f"{len(raw):,} of {MOST_BYTES:,} bytes: EC2 takes no more", "have large files in the image"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if raw.startswith(b"\x1f\x8b"):
            problems.error(0, "it is compressed", "gunzip it to have it checked")
        else:
            problems.error(raw.count(b"\n", 0, error.start) + 1, "it is no UTF-8 text")
        return problems.found
    _header(text, problems)
    try:
        root = read(text)
    except BadYaml as error:
        problems.error(error.line, f"no YAML: {error.why}", error.hint or "")
    else:
        if isinstance(root, Mapping):
            _top(root, problems)
        elif not (isinstance(root, Scalar) and root.is_null):
            problems.error(root.line, "keys are expected here, as runcmd:")
    return sorted(problems.found, key=lambda problem: problem.line)


def _header(text: str, problems: Problems) -> None:
    lines = [line.rstrip() for line in text.split("\n", 2)[:2]]
    if lines[0] == JINJA and len(lines) > 1:
        problems.warn(1, "cloud-init fills in a template first; what it makes of it is not checked")
        lines = lines[1:]
    if lines[0] != HEADER:
        problems.error(1, f"the first line is not {HEADER}", "cloud-init takes the text for something else")


def _top(root: Mapping, problems: Problems) -> None:
    for key, line in root.twice:
        problems.error(line, f"{key} stands twice, and the last one counts")
    for key, line in root.lines.items():
        if key in KEYS:
            continue
        if key == "coreos":
            problems.error(line, "coreos is a key of CoreOS alone", "unitctl bootstrap convert makes ours of it")
        elif key.replace("-", "_") in KEYS:
            problems.error(line, f"{key} is written {key.replace('-', '_')} here")
        else:
            problems.warn(line, f"{key} is no key of cloud-init that we know", nearest(key, KEYS))
    for key, look in _LISTS.items():
        node = root.entries.get(key)
        if isinstance(node, Sequence):
            for item in node.items:
                look(item, key, problems)
        elif node is not None:
            problems.error(node.line, f"{key} is a list")


def _entry(item: Node, key: str, problems: Problems) -> None:
    if isinstance(item, Scalar) and item.is_null:
        problems.error(item.line, f"an entry of {key} is empty")


def _command(item: Node, key: str, problems: Problems) -> None:
    words = isinstance(item, Sequence) and item.items and all(isinstance(word, Scalar) for word in item.items)
    if not words and (not isinstance(item, Scalar) or item.is_null):
        hint = "quote a command that holds ': '" if isinstance(item, Mapping) else ""
        problems.error(item.line, f"an entry of {key} is a text, or a list of words", hint)


def _file(item: Node, key: str, problems: Problems) -> None:
    if not isinstance(item, Mapping):
        problems.error(item.line, f"an entry of {key} has path and content")
        return
    for name, line in item.lines.items():
        if name not in _FILE_KEYS:
            problems.error(line, f"{name} is no key of {key}", nearest(name, _FILE_KEYS))
    path, content = item.entries.get("path"), item.entries.get("content")
    if not isinstance(path, Scalar) or not path.text.startswith("/"):
        problems.error(item.line, "a file is named by its absolute path", "path: /etc/…")
        return
    _mode(item.entries.get("permissions"), problems)
    if content is None:
        return
    if not isinstance(content, Scalar):
        problems.error(content.line, "the content of a file is a text", "content: |")
        return
    text = _decoded(item.entries.get("encoding"), content, problems)
    if text is not None:
        contents.judge(path.text, text, content.line + content.block, problems)


def _mode(mode: Node | None, problems: Problems) -> None:
    if mode is None:
        return
    if isinstance(mode, Scalar) and mode.plain and mode.text.removeprefix("0o").isdigit():
        problems.error(mode.line, f"permissions {mode.text} is a number to YAML", f"quote it: '{mode.text}'")
    elif not isinstance(mode, Scalar) or not _MODE.fullmatch(mode.text):
        problems.error(mode.line, "permissions are octal digits", "'0644'")


def _decoded(encoding: Node | None, content: Scalar, problems: Problems) -> str | None:
    """The content as the host will have it; None for what is no text."""
    word = encoding.text if isinstance(encoding, Scalar) else ""
    steps = _ENCODINGS.get(word.lower())
    if steps is None:
        problems.error(content.line, f"{word!r} is no encoding", f"one of {', '.join(filter(None, _ENCODINGS))}")
        return None
    raw = content.text.encode("utf-8", "surrogatepass")
    try:
        if "b64" in steps:
            raw = base64.b64decode(b"".join(raw.split()), validate=True)
        if "gz" in steps:
            raw = zlib.decompressobj(wbits=31).decompress(raw, _MOST_UNPACKED)
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    except (binascii.Error, zlib.error) as error:
        problems.error(content.line, f"the content is not {word}: {error}")
        return None


_LISTS: dict[str, Callable[[Node, str, Problems], None]] = {
    "write_files": _file,
    "runcmd": _command,
    "bootcmd": _command,
    "packages": _entry,
    "ssh_authorized_keys": _entry,
}
