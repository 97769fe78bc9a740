"""The fleet reading of a unit text: order, quirks, serialised form, hash."""

from __future__ import annotations

import hashlib

import pytest

from unitfleet import unitfile
from unitfleet.unitfile import Option, UnreadableUnit


def pairs(text: str) -> list[tuple[str, str, str]]:
    return [(option.section, option.name, option.value) for option in unitfile.parse(text).options]


def test_the_hash_is_the_sha1_of_the_serialised_options() -> None:
    file = unitfile.parse("[Service]\nExecStart=/bin/sleep 100\n")
    assert file.fleet_hash() == "1c6fb6f3684bafb0c173d8b8b957ceff031180c1"


def test_serialising_groups_sections_and_drops_comments_and_spacing() -> None:
    file = unitfile.parse("# c\n[B]\n x = 1 \n[A]\ny=2\n; c\n[B]\nz=3")
    assert file.serialize() == "[B]\nx=1\nz=3\n\n[A]\ny=2\n"


def test_each_option_knows_the_line_it_begins_on() -> None:
    file = unitfile.parse("# c\n\n[A]\nx=1 \\\n  2\ny=3\n")
    assert file.options == (Option("A", "x", "1 \\\n  2", 4), Option("A", "y", "3", 6))


def test_text_before_the_first_section_is_ignored() -> None:
    assert pairs("Wants=a.service\n[Unit]\nA=b\n") == [("Unit", "A", "b")]


def test_a_continued_value_keeps_its_backslash_and_its_comment_lines() -> None:
    assert pairs("[S]\nA=x\\\n# c\nB=y\n") == [("S", "A", "x\\\n# c"), ("S", "B", "y")]


def test_a_comment_that_ends_in_a_backslash_swallows_the_next_line() -> None:
    assert pairs("[S]\n# c \\\nA=b\nC=d\n") == [("S", "C", "d")]


def test_a_carriage_return_at_the_end_of_a_line_is_no_part_of_a_value_and_ends_a_continuation() -> None:
    assert pairs("[S]\r\nA=b\r\nC=d \\\r\nE=f\r\n") == [("S", "A", "b"), ("S", "C", "d \\"), ("S", "E", "f")]


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("[A]\n\nno assignment\n", "unexpected newline encountered while parsing option name", 3),
        ("[A]\nb=c\n[Unit", "unable to find end of section", 3),
        ("[A] junk\n", "found garbage after section name : [106 117 110 107]", 1),
        ("[A]\nno newline", "EOF", 2),
        ("[A]\nb=" + "x" * 2048 + "\n", "line too long (max 2048 bytes)", 2),
    ],
)
def test_what_fleet_refuses_is_refused_in_its_words(text: str, reason: str, line: int) -> None:
    with pytest.raises(UnreadableUnit) as caught:
        unitfile.parse(text)
    assert (caught.value.reason, caught.value.line) == (reason, line)


def test_a_line_of_2047_bytes_passes_and_the_limit_can_be_lifted() -> None:
    short = "b=" + "x" * 2045
    long = "b=" + "x" * 5000
    assert len(unitfile.parse(f"[A]\n{short}\n{short}\n{short}\n").options) == 3
    assert len(unitfile.parse(f"[A]\n{long}\n", max_line=None).options) == 1


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ('"a=b" "c=d"', ["a=b", "c=d"]),
        ("a=b c=d", ["a=b c=d"]),
        ('"a b"', ["a b"]),
        ('"a" b', ['"a" b']),
        ('"foo\\"bar"', ["foo\\bar"]),
        ('""', [""]),
    ],
)
def test_only_a_line_that_begins_and_ends_with_a_quote_is_several_values(value: str, wanted: list[str]) -> None:
    assert unitfile.quoted_values(value) == wanted


def test_the_key_of_a_text_is_the_sha256_of_its_bytes() -> None:
    text = "[Unit]\nDescription=é\n"
    assert unitfile.spec_digest(text) == hashlib.sha256(text.encode()).hexdigest()
