"""etcd's messages: the compiled descriptors, key ranges, and what a watch makes of an answer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unitfleet.errors import Compacted
from unitfleet.etcd.endpoint import Failure
from unitfleet.etcd.messages import WATCH, first_key, range_end
from unitfleet.etcd.watch import batches

ROOT = Path(__file__).resolve().parents[2]


def test_the_compiled_descriptors_are_those_of_the_proto_file(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    subprocess.run([sys.executable, ROOT / "scripts/compile-proto", tmp_path / "rpc.pb"], check=True, timeout=60)
    committed = (ROOT / "core/unitfleet/etcd/rpc.pb").read_bytes()
    assert committed == (tmp_path / "rpc.pb").read_bytes(), "run scripts/compile-proto"


@pytest.mark.parametrize(
    ("prefix", "first", "end"),
    [("/a/", b"/a/", b"/a0"), ("a", b"a", b"b"), ("a~", b"a~", b"a\x7f"), ("", b"\0", b"\0")],
    ids=["a folder", "a letter", "the last printable character", "every key"],
)
def test_a_prefix_is_a_range_of_keys(prefix: str, first: bytes, end: bytes) -> None:
    assert (first_key(prefix), range_end(prefix)) == (first, end)


def answer(revision: int, *changes: tuple[str, int], **fields: Any) -> Any:
    """Build etcd's message: `changes` are keys with their revisions."""
    events = [{"kv": {"key": key.encode(), "mod_revision": at}} for key, at in changes]
    return WATCH.answer(header={"revision": revision}, events=events, **fields)


def test_a_message_of_many_revisions_is_one_batch_for_each() -> None:
    message = answer(9, ("a", 4), ("b", 4), ("a", 6))
    assert [(b.revision, [e.kv.key for e in b.events]) for b in batches(message, 4)] == [
        (4, ["a", "b"]),
        (6, ["a"]),
    ]


def test_what_was_delivered_before_is_not_delivered_again() -> None:
    assert [b.revision for b in batches(answer(9, ("a", 4), ("a", 5), ("a", 6)), 6)] == [6]


def test_a_message_without_events_is_progress() -> None:
    (progress,) = batches(answer(9), 5)
    assert (progress.revision, progress.events) == (9, ())


@pytest.mark.parametrize(
    ("message", "following"),
    [(answer(9, created=True), 5), (answer(9), 10)],
    ids=["the watch was only made", "it tells nothing new"],
)
def test_what_says_nothing_is_no_progress(message: Any, following: int) -> None:
    assert list(batches(message, following)) == []


def test_a_compacted_start_ends_a_watch_and_other_reasons_move_it() -> None:
    with pytest.raises(Compacted) as compacted:
        list(batches(answer(9, canceled=True, compact_revision=7), 5))
    assert compacted.value.compact_revision == 7
    with pytest.raises(Failure, match="no leader"):
        list(batches(answer(9, canceled=True, cancel_reason="etcdserver: no leader"), 5))
