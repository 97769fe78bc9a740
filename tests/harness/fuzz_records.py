"""Records of every kind as the store holds them, and what may become of their bytes and keys on the way."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from unitfleet import codec, keys, model
from unitfleet.model import Record

KINDS: tuple[type[Record], ...] = tuple(
    kind
    for kind in vars(model).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
)

NAMES = (
    "a.service",
    "web@1.service",
    "m1",
    "0" * 32,
    "0" * 64,
    "agent",
    "000000000001",
    "1",
    "+1",
    "²",
    "",
    "a/b",
)
WORDS = {
    1: ("epoch", "cluster", "leader", "brake", "protection"),
    2: (
        *("specs", "units", "pins", "pending", "machines", "machine-spec", "roster", "resources", "warm", "kinds"),
        *("warm-set", "images", "masters", "tokens", "token-names", "join", "secrets", "fence"),
    ),
    3: ("placements", "states", "identities", "sealed", "events", "history", "history"),
}
"""Kinds of keys, by how many words a key of them has."""

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**53,
    2**63,
    10**30,
    1.5,
    1e308,
    "",
    "x",
    "\0",
    "launched",
    [],
    {},
    [[]],
    {"": {}},
)
"""In place of any field."""


def records() -> SearchStrategy[Record]:
    """Return records of all kinds, with any values of the right type that JSON has."""
    made = st.sampled_from(KINDS).flatmap(lambda kind: st.builds(kind, extra=st.just({})))
    return made.filter(lambda record: not {"inf", "nan"} & set(re.findall(r"[a-z]+", repr(record))))


def raw_records() -> SearchStrategy[tuple[str, bytes]]:
    """Return keys and values: whole ones, with odd fields, deep, torn, or no JSON at all."""
    words = st.sampled_from([(word, length) for length, some in WORDS.items() for word in some])
    more = st.sampled_from([0, 0, 0, 0, -1, 1])
    names = st.lists(st.sampled_from(NAMES), min_size=3, max_size=3)
    key = st.tuples(words, more, names).map(lambda drawn: _key(*drawn))
    return st.tuples(key, records(), st.integers(0, 1 << 32)).map(lambda drawn: _spoilt(*drawn))


def _key(word: tuple[str, int], more: int, names: list[str]) -> str:
    return keys.PREFIX + "/".join((word[0], *names[: max(0, word[1] - 1 + more)]))


def _spoilt(key: str, record: Record, chance: int) -> tuple[str, bytes]:
    rng = random.Random(chance)
    try:
        raw = codec.encode(record)
    except OverflowError:
        return key, b"7" * rng.randint(1, 20)  # a number that JSON does not hold; and what an epoch may be
    fields: dict[str, Any] = json.loads(raw)
    for name in rng.sample(sorted(fields), min(len(fields), rng.randint(0, 3))):
        fields[name] = rng.choice((*ODD, *NAMES))
    if rng.random() < 0.3:
        fields["newer"] = rng.choice(ODD)
    raw = json.dumps(fields).encode()
    match rng.randint(0, 9):
        case 0:
            at = rng.randrange(len(raw))
            return key, raw[:at] + rng.randbytes(rng.randint(0, 3)) + raw[at + 1 :]
        case 1:
            deep = rng.choice((b"[", b'{"a":')) * rng.choice((5, 5000))
            return key, raw[:-1] + b',"deep":' + deep
        case 2:
            return key, raw[: rng.randrange(len(raw))]
    return key, raw
