"""Encoded unit names: safe for file systems and Engines, reversible, distinct."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit_agent.encoding import MAX_LENGTH, decode_name, encode_name

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
names = st.text("0123456789abcXYZ:_.@\\-x", min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("unit", "encoded"),
    [
        ("adserver@1.service", "adserver_401.service"),
        ("a_b.service", "a_5fb.service"),
        ("-.mount", "x__-.mount"),
        ("@x.service", "x___40x.service"),
        ("dev-disk\\x2d1.mount", "dev-disk_5cx2d1.mount"),
    ],
)
def test_a_name_is_written_as_documented(unit: str, encoded: str) -> None:
    assert encode_name(unit) == encoded


@given(names)
def test_every_name_comes_back_and_is_safe(unit: str) -> None:
    encoded = encode_name(unit)
    assert SAFE.match(encoded)
    assert decode_name(encoded) == unit


@given(names, names)
def test_two_names_never_share_an_encoding(one: str, other: str) -> None:
    assert (encode_name(one) == encode_name(other)) == (one == other)


@given(st.text("ab_@", min_size=150, max_size=256), st.text("ab_@", min_size=150, max_size=256))
def test_long_names_stay_short_and_distinct(one: str, other: str) -> None:
    assert len(encode_name(one)) <= MAX_LENGTH
    assert SAFE.match(encode_name(one))
    assert (encode_name(one) == encode_name(other)) == (one == other)


@pytest.mark.parametrize(
    "foreign", ["", "..__", "a__b", "a@b", "a_4", "x__ab", "_40", "a_61", "lost+found", "a_ff"]
)
def test_a_foreign_name_is_refused(foreign: str) -> None:
    with pytest.raises(ValueError):
        decode_name(foreign)


def test_a_shortened_name_is_refused() -> None:
    with pytest.raises(ValueError, match="shortened"):
        decode_name(encode_name("a" * 250 + ".service"))
