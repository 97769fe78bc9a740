"""What a request is about, in words and names, out of its path and body; nothing of the body but names is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from unit_master.access.callers import some
from unitfleet import foreign
from unitfleet.model import TargetState

MOST_NAMES = 20
MOST_CHARACTERS = 256
"""Of one name: what nobody accepted yet may be anything."""

_SECRET = re.compile(r"(uft_[^_]*_|ufj1\.).*", re.DOTALL)
"""A whole token where its name or id is meant: it may be good still."""


@dataclass(frozen=True, slots=True)
class Deed:
    """`action` reads after "cannot". `objects` are the first names of `count`."""

    action: str
    objects: tuple[str, ...] = ()
    count: int = 0


class _Change(msgspec.Struct):
    name: str = ""
    text: msgspec.Raw = msgspec.Raw()
    target: str | None = None
    restart: bool = False
    bandwidth: msgspec.Raw = msgspec.Raw()

    def verb(self, launched: Callable[[str], bool]) -> str:
        match self.target:
            case TargetState.DESTROYED:
                return "destroy"
            case TargetState.INACTIVE:
                return "unload"
            case TargetState.LOADED:
                return "stop" if launched(self.name) else "load"
            case TargetState.LAUNCHED:
                return "start"
        return "restart" if self.restart else "limit" if self.bandwidth else "submit" if self.text else "change"


class _Body(msgspec.Struct):
    changes: tuple[_Change, ...] = ()
    image: str = ""
    name: str = ""


def deed(does: str, match: Mapping[str, str], raw: bytes, launched: Callable[[str], bool]) -> Deed:
    """Return what a request does. `does` are the route's words, with its fields in braces.

    `launched` says whether a unit is to run now. A body that nobody can read names nothing: it is refused later.
    """
    try:
        body = foreign.decode(raw, _Body) if raw and not match else _Body()
    except msgspec.MsgspecError:
        body = _Body()
    if body.changes:
        verbs = {change.verb(launched) for change in body.changes}
        names = tuple(_short(change.name) for change in body.changes[:MOST_NAMES])
        verb = verbs.pop() if len(verbs) == 1 else "change"
        return Deed(f"{verb} {some(names, len(body.changes))}", names, len(body.changes))
    fields = {name: _short(value) for name, value in match.items()}
    for name in ("image", "name"):
        if value := getattr(body, name):
            fields[name] = _short(value)
    objects = tuple(value for name, value in fields.items() if name != "order")
    return Deed(does.format_map(_Fields(fields)), objects, len(objects))


class _Fields(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return f"an unnamed {key}"


def _short(text: str) -> str:
    kept = _SECRET.sub(r"\1…", text)[:MOST_CHARACTERS]
    return kept if kept.isprintable() else repr(kept)[1:-1]
