"""Reads a CoreOS cloud-config: what it is, and its keys; the host's addresses become words of ours."""

from __future__ import annotations

import re

from unitctl.bootstrap.hostplan import PRIVATE, PUBLIC
from unitctl.bootstrap.yamltree import BadYaml, Mapping, Scalar, read
from unitctl.failures import Failure

_MARKS = {"$private_ipv4": PRIVATE, "$public_ipv4": PUBLIC}
_ADDRESS = re.compile(r"(\\?)(\$(?:private|public)_ipv4)")


def load(raw: bytes, filename: str) -> Mapping:
    """Return the keys of a cloud-config; raises `Failure` that says what the text is instead, and where.

    CoreOS put the host's addresses into the text before it read its YAML; so do we, with words that are YAML
    wherever an address is, and that the host itself replaces. `\\$private_ipv4` was meant literally.
    """
    if raw.startswith(b"\x1f\x8b"):
        raise _refused(filename, 1, "it is compressed", "gunzip it first")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(filename, raw.count(b"\n", 0, error.start) + 1, "it is no UTF-8 text") from error
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0].strip()
    if first.startswith("#!"):
        raise _refused(filename, 1, "it is a script", "cloud-init runs scripts as they are")
    if first.lower().startswith(("content-type:", "mime-version:")):
        raise _refused(filename, 1, "it has several parts (MIME)", "convert its cloud-config alone")
    if first.startswith("#cloud-config-archive"):
        raise _refused(filename, 1, "it is an archive of several parts", "convert each cloud-config in it alone")
    try:
        root = read(_ADDRESS.sub(lambda found: found[2] if found[1] else _MARKS[found[2]], text))
    except BadYaml as error:
        raise _refused(filename, error.line, f"no YAML: {error.why}", error.hint) from error
    match root:
        case Mapping():
            return root
        case Scalar() if root.is_null:
            return Mapping(1, {}, {})
        case Scalar():
            raise _refused(filename, root.line, "it is a text and has no keys", "was a template never filled in?")
        case _:
            raise _refused(
                filename, root.line, "it is a list, as an archive is", "convert each cloud-config in it alone"
            )


def _refused(filename: str, line: int, why: str, hint: str | None = None) -> Failure:
    return Failure(f"cannot convert {filename}: line {line}: {why}", hint=hint)
