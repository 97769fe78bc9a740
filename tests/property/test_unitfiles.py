"""Whatever text comes, the readings answer in bounded time; what they write they read back."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.effort import examples
from unitfleet import accept, environment, names, quoting, timespan, unitfile
from unitfleet.errors import InvalidName, InvalidUnit
from unitfleet.options import CONTAINER_KEYS, PROCESS_SERVICE, XFLEET_KEYS
from unitfleet.problems import BadValue
from unitfleet.spec import UnitSpec

KEYS = {
    "Service": sorted(PROCESS_SERVICE),
    "Container": sorted(CONTAINER_KEYS),
    "X-Fleet": sorted(XFLEET_KEYS),
    "Unit": ["Description", "After", "StartLimitBurst"],
}
VALUES = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="\\\"'%$ {}[]:=,;/-@+!\n0123456789abcni.", max_size=40),
    st.sampled_from(
        ["", "yes", "0", "infinity", "a=b", "/a:/b", "80:80", "%i", "no", "a.service", "64M", "[", "-1"]
    ),
)
LINES = st.one_of(
    *(st.tuples(st.sampled_from(keys), VALUES).map("=".join) for keys in KEYS.values()),
    st.sampled_from([f"[{section}]" for section in KEYS]),
    st.text(max_size=30),
)
TEXTS = st.lists(LINES, max_size=25).map("\n".join)

SAFE = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1)
WORDS = SAFE.filter(lambda text: not set(text) & set("=[]#;\\\u200b"))
OPTIONS = st.lists(st.tuples(st.sampled_from(["Unit", "Service", "X-Fleet"]), WORDS, WORDS), max_size=12)


@given(OPTIONS)
def test_what_fleets_reading_writes_it_reads_back(options: list[tuple[str, str, str]]) -> None:
    file = unitfile.UnitFile(tuple(unitfile.Option(*option, line=0) for option in options))
    again = unitfile.parse(file.serialize(), max_line=None)
    assert again.contents() == file.contents()
    assert again.serialize() == file.serialize()
    assert again.fleet_hash() == file.fleet_hash()


@given(TEXTS)
@settings(max_examples=examples(300, 50), deadline=None)
def test_any_text_is_read_or_refused_and_never_anything_else(text: str) -> None:
    for name in ("web@1.service", "web@.service", "a.timer"):
        begun = time.perf_counter()
        try:
            spec = accept.read(name, text)
        except InvalidUnit as error:
            assert error.problems
        else:
            assert isinstance(spec, UnitSpec)
            assert spec == accept.read(name, text)
        assert time.perf_counter() - begun < 5


@given(st.sampled_from("\\\"'%$[]{}=:,;a0 *#\n\r"), st.sampled_from(sorted(CONTAINER_KEYS | {"ExecStart", "CPU"})))
@settings(max_examples=examples(100, 25), deadline=None)
def test_a_text_of_one_character_over_and_over_is_answered_in_time(character: str, key: str) -> None:
    section = "Container" if key in CONTAINER_KEYS else "Service" if key == "ExecStart" else "X-Fleet"
    begun = time.perf_counter()
    try:
        accept.read("a.service", f"[{section}]\n{key}=" + character * 65000)
    except InvalidUnit:
        pass
    assert time.perf_counter() - begun < 10


@given(st.text())
def test_any_name_is_taken_apart_whole_or_refused(text: str) -> None:
    try:
        unit = names.parse(text)
    except InvalidName:
        return
    middle = f"@{unit.instance}" if "@" in unit.name else ""
    assert f"{unit.prefix}{middle}.{unit.suffix}" == text
    assert names.complete(text) == text


@given(st.text(alphabet="ab*?[]^-\\/!", max_size=12), st.text(alphabet="ab[]-/!^", max_size=12))
def test_a_glob_never_fails_and_a_broken_one_matches_nothing_of_note(pattern: str, name: str) -> None:
    matched = names.glob_match(pattern, name)
    if matched and names.glob_fault(pattern) is not None:
        raise AssertionError("a pattern with a fault matched")


@given(st.text(alphabet="ab{}<>.,@0123456789", max_size=20))
def test_an_expansion_is_at_most_ten_thousand_names_without_brackets(text: str) -> None:
    try:
        found = names.expand(text)
    except InvalidName:
        return
    assert 1 <= len(found) <= names.MAX_EXPANSION
    assert not any(set("{}<>") & set(name) for name in found)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=10), max_size=6))
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    def quoted(word: str) -> str:
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert quoting.split_words(" ".join(quoted(word) for word in words)) == words


@given(st.text())
def test_small_parsers_answer_or_refuse(text: str) -> None:
    environment.parse_file(text)
    try:
        timespan.parse(text)
    except BadValue:
        pass
