"""JSON by the interpreter's own C scanner, without the json package (1 MB of resident memory)."""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Rules:
    """What the C scanner asks of its context."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner clears it


class Fields:
    """A JSON object read by attribute, its objects too."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        value = self._fields[name]
        return Fields(value) if isinstance(value, dict) else value


def read(text: str) -> Any:
    """Return the value that `text` holds; raises ValueError when it is not JSON."""
    try:
        value, _ = _json.make_scanner(_Rules)(text.strip(), 0)  # type: ignore[arg-type]
    except StopIteration:
        raise ValueError("cannot read JSON: it is cut short") from None
    return value


def write(value: object) -> str:
    """Return `value` (dicts with text keys, lists, text, numbers, None) as JSON."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write(name)}: {write(held)}" for name, held in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(write(item) for item in value) + "]"
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
