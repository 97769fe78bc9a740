"""What reads units, keys with their values, and tokens, fuzzed: only what is documented comes of any input."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from harness.fuzz import Hung, edited, fuzz, within
from harness.fuzz_records import KINDS, raw_records, records
from unit_master.access import tokens
from unit_master.view import ClusterView
from unitfleet import accept, codec, jointoken, keys, systemd, unitfile
from unitfleet.errors import BadRecord, InvalidConfig, InvalidName, InvalidUnit
from unitfleet.model import Record, Role, Token
from unitfleet.options import CONTAINER_KEYS, PROCESS_SERVICE, XFLEET_KEYS
from unitfleet.problems import Problems
from unitfleet.spec import UnitSpec
from unitfleet.store import Batch, Event, EventKind, KeyValue

TOP = Path(__file__).parents[2]
SAMPLES = sorted((TOP / "tests/unit/unitfiles").iterdir()) + sorted((TOP / "units").iterdir())
UNITS = [path.read_text() for path in SAMPLES if path.is_file()]
UNITS += ["", "[Service]\nExecStart=/bin/true\n", "[X-Fleet]\nGlobal=yes", "[Container]\nImage=a"]
LINES = [
    *(f"{key}=" for key in sorted(PROCESS_SERVICE | CONTAINER_KEYS | XFLEET_KEYS)),
    *("[Service]", "[Container]", "[X-Fleet]", "[Unit]", "[Install]", "[Socket]", "[", "]", "=", "\\", "#", ";"),
    *(
        "%i",
        "%%",
        "%",
        "${A}",
        "$",
        '"',
        "'",
        "\\x",
        "\\u0000",
        "\0",
        "\ud800",
        "\r\n",
        "\x85",
        "\u2028",
        "\ufeff",
    ),
    *("infinity", "99999999999999999999", "-1", "1e400", "0x", "10%", "1d 2h", "64M", "a=b", "/", "a" * 5000),
]

TOKEN = Token(
    id="0123456789ab",
    name="ci",
    role=Role.VIEWER,
    digest=tokens.digest_of("s" * 43),
    created_by="x",
    created_at=0.0,
)
WORD = f"uft_{TOKEN.id}_{'s' * 43}"
JOIN = jointoken.JoinToken(("https://10.0.0.1:4001", "https://[fd00::1]:4001"), "ab" * 32, "k3x9", "cd" * 24)


def test_any_unit_text_is_a_spec_or_a_refusal_with_its_lines() -> None:
    def read(drawn: tuple[str, str, dict[str, str] | None]) -> None:
        name, text, host = drawn
        try:
            spec = accept.read(name, text, host=host)
        except InvalidUnit as error:
            assert error.problems and all(problem.startswith(name) for problem in error.problems)
        except InvalidName:
            pass
        else:
            assert isinstance(spec, UnitSpec) and accept.read(name, text, host=host) == spec
        systemd.read(text, Problems())
        for max_line in (unitfile.MAX_LINE, None):
            try:
                file = unitfile.parse(text, max_line=max_line)
            except unitfile.UnreadableUnit as error:
                assert error.line >= 1
            else:
                assert len(file.fleet_hash()) == 40 and file.contents().keys() == {o.section for o in file.options}

    names = st.sampled_from(
        ["a.service", "a@1.service", "a@.service", "a.timer", "a@x-y.socket", "a", "@.service"]
    )
    hosts = st.sampled_from([None, {"H": "node-a", "m": "0" * 32}, {}])
    assert fuzz(st.tuples(names, edited(UNITS, LINES, apart="\n"), hosts), read) > 50


def test_any_key_and_value_is_a_record_or_named_as_unreadable_and_goes_without_a_trace() -> None:
    view, empty = ClusterView(), ClusterView()

    def look(drawn: tuple[str, bytes]) -> None:
        key, raw = drawn
        for kind in KINDS:
            try:
                record = codec.decode(raw, kind, key)
            except BadRecord as error:
                assert str(error).startswith(f"cannot read {key}: ")
            else:
                again = codec.encode(record)
                assert codec.decode(again, kind) == record
                newer = json.loads(raw).keys() - {*kind.__struct_fields__}
                assert newer <= json.loads(again).keys(), "what a newer version wrote is kept"
        happened(view, EventKind.PUT, key, raw)
        assert view.revisions.keys() == {key}
        happened(view, EventKind.DELETE, key, b"")
        assert held(view) == held(empty)

    assert fuzz(raw_records(), look) > 50


def test_what_the_codec_writes_it_reads_back_and_keys_come_apart_as_they_were_made() -> None:
    def look(drawn: tuple[Record, str, str, int]) -> None:
        record, machine, unit, number = drawn
        try:
            raw = codec.encode(record)
        except OverflowError:
            return  # JSON of other programs has no such number: nobody counts so far
        assert codec.decode(raw, type(record)) == record
        assert keys.split(keys.unit(unit)) == ("units", unit)
        assert keys.split(keys.placement(machine, unit)) == ("placements", machine, unit)
        assert keys.split(keys.state(machine, unit)) == ("states", machine, unit)
        kind, of, epoch = keys.split(keys.stay(unit, number))
        assert (kind, of, int(epoch)) == ("history", unit, number)

    name = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]))
    numbers = st.integers(0, 2**53)
    fuzz(st.tuples(records(), name, name, numbers), look)


def test_any_word_is_a_token_that_was_made_or_none_and_no_refusal_repeats_it() -> None:
    view = ClusterView()
    happened(view, EventKind.PUT, keys.token(TOKEN.id), codec.encode(TOKEN))
    right = jointoken.write(JOIN)

    def look(word: str) -> None:
        taken = tokens.split(word)
        assert taken is None or (all(taken) and f"uft_{taken[0]}_{taken[1]}" == word)
        assert (tokens.find(view, word) is not None) == (word == WORD)
        try:
            token = jointoken.read(word)
        except InvalidConfig as error:
            secret = word.strip().removeprefix(jointoken.PREFIX)
            assert len(secret) < 8 or secret not in f"{error.message} {error.hint}"
            return
        assert jointoken.read(jointoken.write(token)) == token and token.secret not in repr(token)
        assert jointoken.hashed(token.secret) and all(each.startswith("https://") for each in token.endpoints)

    odd = ["_", "uft_", "ufj1.", "=", "-", " ", "\0", "\ud800", "\udcff", "é", "A" * 3000]
    words = st.one_of(edited([WORD, right, "uft__", "ufj1."], odd), sealed_words())
    assert fuzz(words, look) > 50


def test_what_takes_for_ever_is_ended() -> None:
    with pytest.raises(Hung), within(0.2):
        while True:
            pass


def sealed_words() -> st.SearchStrategy[str]:
    """Return join tokens whose checksum is right, whatever they carry."""
    texts = st.one_of(
        st.text(max_size=20),
        st.sampled_from(["https://h:1", "https://h:99999", "https://[", "https://", "http://h"]),
    )
    blobs = st.one_of(st.binary(max_size=40), st.just(bytes(32)), st.just(bytes(24)))
    fields = st.tuples(st.lists(texts, max_size=3), blobs, st.one_of(texts, st.just("k3x9")), blobs)
    anything: Any = st.one_of(fields, fields.map(list), st.lists(st.one_of(texts, blobs, st.none()), max_size=5))
    raws = st.one_of(anything.map(msgspec.msgpack.encode), st.binary(max_size=60), st.just(b"\x91" * 5000))

    def word(raw: bytes) -> str:
        whole = raw + hashlib.sha256(raw).digest()[:4]
        return jointoken.PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")

    return raws.map(word)


def happened(view: ClusterView, kind: EventKind, key: str, raw: bytes) -> None:
    """Have a view see one change."""
    at = view.revision + 1
    kv = KeyValue(key=key, value=raw, create_revision=at, mod_revision=at, version=1)
    view.apply_batch(Batch(at, (Event(kind, kv),)))


def held(view: ClusterView) -> dict[str, object]:
    """Return all that a view holds of keys."""
    counted = {"revision", "highest_epoch"}
    return {name: getattr(view, name) for name in view.__slots__ if name not in counted}
