"""JSON that others wrote: one error for whatever is wrong with it, wherever it comes in."""

from __future__ import annotations

import msgspec
import pytest

from unit_master.view import ClusterView
from unitfleet import codec, foreign, jointoken, keys
from unitfleet.api import LogLine
from unitfleet.errors import BadRecord, InvalidConfig
from unitfleet.jointoken import JoinToken
from unitfleet.model import Cluster
from unitfleet.store import KeyValue, Listing

DEEP = b'{"v":1,"id":"a","at":1,"stream":"stdout","text":"x","more":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("raw", "why"),
    [(DEEP, "nested too deeply"), (b'{"at":1,"stream":"\xff"}', "UTF-8|malformed"), (b"", "truncated")],
    ids=["deep", "no UTF-8", "nothing"],
)
def test_what_is_no_json_is_one_error(raw: bytes, why: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=why):
        foreign.decode(raw, LogLine)


def test_a_record_nested_without_end_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="cannot read cluster: JSON is nested too deeply"):
        codec.decode(DEEP, Cluster, "cluster")


@pytest.mark.parametrize("epoch", ["²", "9" * 5000, "+00000000001", "1", "00000000_001"])
def test_a_stay_whose_epoch_is_no_number_of_ours_is_named_and_goes(epoch: str) -> None:
    key = f"{keys.stays_of('a.service')}{epoch}"
    raw = b'{"v":1,"unit":"a.service","machine":"m1","epoch":1,"at":1,"reason":""}'
    view = ClusterView()
    view.apply_listing(Listing(1, (KeyValue(key, raw, 1, 1, 1),)))
    assert view.bad.keys() == {key} and not view.stays
    view.apply_listing(Listing(2, ()))
    assert not view.bad


@pytest.mark.parametrize(
    "token",
    [
        JoinToken(("https://h:99999",), "ab" * 32, "k3x9", "cd" * 24),
        JoinToken(("https://[",), "ab" * 32, "k3x9", "cd" * 24),
        JoinToken(("http://h:1",), "ab" * 32, "k3x9", "cd" * 24),
        JoinToken(("https://h:1",), "ab", "k3x9", "cd" * 24),
        JoinToken(("https://h:1",), "ab" * 32, "../x", "cd" * 24),
        JoinToken(("https://h:1",), "ab" * 32, "k3x9", ""),
    ],
    ids=["port", "address", "no TLS", "authority", "id", "secret"],
)
def test_a_join_token_that_carries_no_way_in_is_refused(token: JoinToken) -> None:
    with pytest.raises(InvalidConfig, match="it is of another version"):
        jointoken.read(jointoken.write(token))
