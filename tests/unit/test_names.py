"""Names: fleet's rules, what a user may type, ranges and globs."""

from __future__ import annotations

import pytest

from unitfleet import names
from unitfleet.errors import InvalidName


def test_an_instance_is_taken_apart_at_its_first_at_and_its_last_dot() -> None:
    unit = names.parse("foo.1@a@b.c.service")
    assert (unit.prefix, unit.instance, unit.suffix) == ("foo.1", "a@b.c", "service")
    assert (unit.name, unit.template) == ("foo.1@a@b.c", "foo.1@.service")
    assert unit.is_instance and not unit.is_template


def test_a_template_has_no_instance_and_a_plain_name_no_template() -> None:
    assert names.parse("adserver@.service").is_template
    plain = names.parse("redis.service")
    assert (plain.template, plain.is_template, plain.is_instance) == ("", False, False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("", "cannot be empty", id="an empty name"),
        pytest.param("a" * 249 + ".service", "maximum length", id="a name of 257 characters"),
        pytest.param("ü" * 125 + ".service", "maximum length", id="a name of more than 256 bytes"),
        pytest.param("redis", 'must contain "."', id="a name without a type"),
        pytest.param("redis.", 'cannot end in "."', id="a dot at the end"),
        pytest.param("redis.servise", "invalid unit type", id="an unknown type"),
        pytest.param("a/b.service", "invalid character '/'", id="a slash"),
        pytest.param("a\nb.service", r"invalid character '\n'", id="a control character"),
        pytest.param("a\0b.service", r"invalid character '\x00'", id="a NUL"),
        pytest.param("a b.service", "invalid character ' '", id="a blank"),
        pytest.param("é.service", "invalid character 'é'", id="a letter beyond ASCII"),
        pytest.param("a..service", 'cannot contain ".."', id="two dots"),
        pytest.param("@1.service", 'cannot start in "@"', id="an instance of nothing"),
        pytest.param("a@1.mount", "invalid unit type for template", id="a template of a type without"),
        pytest.param(".service", "nothing before its type", id="a type alone"),
    ],
)
def test_a_name_that_breaks_a_rule_is_refused_with_the_rule(name: str, reason: str) -> None:
    with pytest.raises(InvalidName) as caught:
        names.validate(name)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message and len(caught.value.message) < 400


def test_the_refusal_of_a_name_without_type_says_which_name_was_meant() -> None:
    with pytest.raises(InvalidName) as caught:
        names.parse("redis")
    assert caught.value.hint == "did you mean redis.service?"


@pytest.mark.parametrize(
    ("typed", "unit"),
    [
        ("redis", "redis.service"),
        ("redis.service", "redis.service"),
        ("yo.yo", "yo.yo.service"),
        ("units/adserver@.service", "adserver@.service"),
        ("../units/web@.container", "web@.service"),
        ("web@3.container", "web@3.service"),
        ("backup.timer", "backup.timer"),
        ("late.target", "late.target"),
        ("adserver@1.2", "adserver@1.2.service"),
    ],
)
def test_what_a_user_types_is_completed_to_a_unit_name(typed: str, unit: str) -> None:
    assert names.complete(typed) == unit
    assert names.complete(unit) == unit


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("a@<1..3>", ["a@1", "a@2", "a@3"]),
        ("a@{1..3}.service", ["a@1.service", "a@2.service", "a@3.service"]),
        ("a@1..3", ["a@1", "a@2", "a@3"]),
        ("a@1..2.service", ["a@1.service", "a@2.service"]),
        ("a@{x,y}", ["a@x", "a@y"]),
        ("a@{1..2,7}", ["a@1", "a@2", "a@7"]),
        ("a@<08..11>", ["a@08", "a@09", "a@10", "a@11"]),
        ("a@<8..11>", ["a@8", "a@9", "a@10", "a@11"]),
        ("{a,b}@<1..2>", ["a@1", "a@2", "b@1", "b@2"]),
        ("../units/a@{1..2}", ["../units/a@1", "../units/a@2"]),
        ("plain.service", ["plain.service"]),
        ("a@*", ["a@*"]),
    ],
)
def test_ranges_are_expanded_in_order(typed: str, wanted: list[str]) -> None:
    assert names.expand(typed) == wanted


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("a@<4..1>", "reversed"),
        ("a@4..1", "reversed"),
        ("a@<1..20000>", "more than 10000"),
        ("a@{1..200}{1..200}", "more than 10000"),
        ("a@<1..99999999999999999999999>", "too large"),
        ("a@<1..", "stands alone"),
        ("a@{1..2", "stands alone"),
        ("a@}", "stands alone"),
        ("a@{}", "not a range"),
        ("a@{1..x}", "not a range"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_with_the_reason(typed: str, reason: str) -> None:
    with pytest.raises(InvalidName, match=reason):
        names.expand(typed)


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("foo@*.service", "foo@a.service", True),
        ("foo@*.service", "foo.service", False),
        ("*", "a/b", False),
        ("?", "/", False),
        ("foo@[^a].service", "foo@b.service", True),
        ("foo@[!a].service", "foo@b.service", False),
        ("foo@[!a].service", "foo@!.service", True),
        ("foo@[a-c]?", "foo@bz", True),
        ("foo@{1,2}", "foo@1", False),
        ("a\\*b", "a*b", True),
        ("[", "[", False),
        ("[]a]", "]", False),
        ("[\\]a]", "]", True),
        ("a[b-", "ab", False),
        ("", "", True),
        ("f*o*e", "foo@e", True),
        ("a*b*c", "abcbc", True),
        ("*a", "ba/a", False),
    ],
)
def test_globs_match_as_go_matches_paths(pattern: str, name: str, wanted: bool) -> None:
    assert names.glob_match(pattern, name) is wanted


def test_a_glob_of_many_stars_is_answered_at_once() -> None:
    assert not names.glob_match("*a" * 200 + "b", "a" * 256)


@pytest.mark.parametrize("pattern", ["[", "a[]", "a[b-]", "a\\", "x[a", "[^]"])
def test_a_broken_glob_says_why_it_matches_nothing(pattern: str) -> None:
    assert names.glob_fault(pattern)


@pytest.mark.parametrize("pattern", ["foo@*.service", "[a-c]", "[^a]b", "a\\[", "plain"])
def test_a_sound_glob_has_no_fault(pattern: str) -> None:
    assert names.glob_fault(pattern) is None


@pytest.mark.parametrize("text", ["", "a/b", "..", "a..b", "-a", "a b", "a\n", "x" * 65])
def test_a_machine_id_or_name_that_can_not_stand_in_a_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        names.validate_machine_id(text)
    with pytest.raises(InvalidName):
        names.validate_machine_name(text)


def test_a_host_name_and_a_random_id_are_fine_for_a_machine() -> None:
    names.validate_machine_name("node-a.example.org")
    names.validate_machine_id("0a1b2c3d4e5f60718293a4b5c6d7e8f9")
