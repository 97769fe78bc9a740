"""Who may come in: roles, tokens, host names, rates."""

from __future__ import annotations

import time

import pytest

from unit_master.access.callers import Caller, some, too_low
from unit_master.access.floods import Bounds, Floods, Full, Lane, Rate
from unit_master.access.hosts import host_fault
from unit_master.access.tokens import digest_of, expired, find, name_fault, split
from unit_master.view import ClusterView, Entry
from unitfleet.model import Role, Token

KNOWN = Token(id="abc123", name="ci", role=Role.VIEWER, digest=digest_of("s_e-cret"), expires_at=100.0)


def a_view(*tokens: Token) -> ClusterView:
    return ClusterView(tokens={token.id: Entry(token, 1, 1) for token in tokens})


def test_each_role_covers_those_below_it_and_no_other() -> None:
    covered = {(held, needed) for held in Role for needed in Role if held.covers(needed)}
    assert covered == {
        (Role.VIEWER, Role.VIEWER),
        (Role.OPERATOR, Role.VIEWER),
        (Role.OPERATOR, Role.OPERATOR),
        *((Role.ADMIN, needed) for needed in Role),
    }


def test_a_role_that_is_too_low_is_told_with_what_it_wanted() -> None:
    viewer = Caller("ci", Role.VIEWER, "10.0.0.9", "abc123")
    why = too_low(viewer, Role.OPERATOR, "stop adserver@1.service")
    assert why == 'cannot stop adserver@1.service: your token "ci" is a viewer, this needs operator'
    assert too_low(viewer, Role.VIEWER, "look") is None


def test_of_many_names_the_first_are_told() -> None:
    assert some(("a", "b"), 2) == "a, b"
    assert some(("a", "b", "c"), 1000) == "a, b and 998 more"


def test_a_token_is_found_by_its_whole_secret_alone() -> None:
    view = a_view(KNOWN)
    assert find(view, "uft_abc123_s_e-cret") is KNOWN
    for wrong in (
        "uft_abc123_s_e-cre",
        "uft_abc123_",
        "uft_abc124_s_e-cret",
        "abc123_s_e-cret",
        "uft__s_e-cret",
        "",
    ):
        assert find(view, wrong) is None, wrong
    assert find(a_view(), "uft__") is None, "the digest of nothing opens nothing"


def test_a_token_that_never_expires_has_no_end() -> None:
    assert [expired(KNOWN, now) for now in (99.0, 100.0, 101.0)] == [False, True, True]
    assert not expired(Token(id="x", name="x", role=Role.ADMIN, digest=""), 1e12)


def test_a_secret_may_hold_what_parts_a_token() -> None:
    assert split("uft_abc_d_e_f") == ("abc", "d_e_f")
    assert split("uf_abc_def") is None


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "ä", "a" * 65, "a\n", "admin", "local", "nobody"])
def test_a_token_can_not_be_called(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize("name", ["ci", "ada@example.org", "grafana-1", "A_b.c"])
def test_a_token_can_be_called(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:4001", True),
        ("127.9.9.9", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:4001", True),
        ("10.0.0.5:4001", True),
        ("[::ffff:10.0.0.5]:4001", True),
        ("10.0.0.6:4001", False),
        ("m1", True),
        ("M1:80", True),
        ("m1.", True),
        ("fleet.example.org:443", True),
        ("evil.example", False),
        ("m1.evil.example:4001", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.0.2.1", True),
        ("", False),
        (":4001", False),
        ("[", False),
    ],
)
def test_a_request_is_answered_by_address_and_known_name_alone(header: str, known: bool) -> None:
    names = ["m1", "Fleet.example.org", "192.0.2.1"]
    assert (host_fault(header, names, "10.0.0.5") is None) is known


SMALL = Bounds(reads=Rate(1, 2), writes=Rate(1, 2), told=Rate(1, 1), requests=4, streams=2, agents=2)


def test_a_flood_of_one_caller_leaves_the_others_and_its_own_reads_alone() -> None:
    floods = Floods(SMALL)
    assert [floods.ask("a", writes=True) is None for _ in range(4)] == [True, True, False, False]
    assert floods.ask("b", writes=True) is None and floods.ask("a", writes=False) is None
    full = floods.ask("a", writes=True)
    assert isinstance(full, Full) and 1 <= full.retry_s <= 2 and "changes" in full.why


def test_a_clock_that_is_set_back_locks_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    floods, now = Floods(SMALL), time.time
    assert [floods.ask("a", writes=True) is None for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    assert [floods.ask("a", writes=True) is None for _ in range(4)] == [True, True, True, False]


def test_one_caller_has_half_of_the_room_and_lanes_take_none_of_each_other() -> None:
    floods = Floods(SMALL)
    with floods.room(Lane.REQUESTS, "a") as first, floods.room(Lane.REQUESTS, "a") as second:
        assert (first, second) == (None, None)
        with floods.room(Lane.REQUESTS, "a") as third, floods.room(Lane.STREAMS, "a") as stream:
            assert isinstance(third, Full) and stream is None
        with floods.room(Lane.REQUESTS, "b") as one, floods.room(Lane.REQUESTS, "b") as two:
            assert (one, two) == (None, None)
            with floods.room(Lane.REQUESTS, "c") as none, floods.room(Lane.AGENTS, "m1") as agent:
                assert isinstance(none, Full) and agent is None
    with floods.room(Lane.REQUESTS, "a") as again:
        assert again is None, "what was held is given back"


def test_one_agent_leaves_room_for_the_output_of_the_others() -> None:
    floods = Floods(Bounds(agents=4))
    with floods.room(Lane.AGENTS, "m1") as first, floods.room(Lane.AGENTS, "m1") as second:
        assert (first, second) == (None, None)
        with floods.room(Lane.AGENTS, "m1") as third, floods.room(Lane.AGENTS, "m2") as other:
            assert isinstance(third, Full) and other is None


def test_the_bounds_are_those_that_are_documented() -> None:
    bounds = Bounds()
    assert (bounds.reads.item.amount, bounds.reads.item.get_expiry()) == (100, 2)
    assert (bounds.writes.item.amount, bounds.writes.item.get_expiry()) == (20, 4)
    assert (bounds.requests, bounds.streams) == (200, 100)
