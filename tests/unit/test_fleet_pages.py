"""Page tokens are fleet's: written and read as its own functions did, faults included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit_master.api.fleet import pages
from unit_master.api.fleet.pages import BadToken

GOLDEN = Path(__file__).parents[2].parent / "shared" / "corpus" / "fleet-golden.jsonl"
NUMBERS = st.integers(0, 65535)


@pytest.mark.skipif(not GOLDEN.exists(), reason="fleet's corpus is not beside the checkout")
def test_every_token_of_fleets_is_written_and_read_as_it_did() -> None:
    lines = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    wrong, count = [], 0
    for given_, wanted in ((line["in"], line["out"]) for line in lines if line["in"]["op"].startswith("token_")):
        count += 1
        if given_["op"] == "token_encode":
            got: object = {"token": pages.encode(given_["limit"], given_["page"])}
        else:
            try:
                limit, page = pages.decode(given_["token"])
                got = {"error": None, "limit": limit, "page": page}
            except BadToken as error:
                got = {"error": error.message, "limit": 0, "page": 0}
        if got != wanted:
            wrong.append((given_, got, wanted))
    assert count > 20
    assert wrong == []


@given(NUMBERS, NUMBERS)
def test_a_token_reads_back_as_it_was_written(limit: int, page: int) -> None:
    assert pages.decode(pages.encode(limit, page)) == (limit, page)


@given(st.text(alphabet=st.sampled_from("ZAab_-=!é\udc80"), max_size=12))
def test_any_text_is_a_token_or_a_refusal_in_words(token: str) -> None:
    try:
        limit, page = pages.decode(token)
    except BadToken as error:
        assert error.message.startswith(("EOF", "unexpected EOF", "illegal base64 data at input byte "))
    else:
        assert 0 <= limit <= 65535 and 0 <= page <= 65535


@pytest.mark.parametrize(
    ("token", "at"), [("zz", 0), ("ZAA", 0), ("ZAACA!==", 5), ("ZA=A", 3), ("ZA=", 3), ("=", 0), ("ZAAC====", 4)]
)
def test_a_fault_is_told_where_go_finds_it(token: str, at: int) -> None:
    with pytest.raises(BadToken, match=f"^illegal base64 data at input byte {at}$"):
        pages.decode(token)


@pytest.mark.parametrize(
    ("count", "pages_"), [(0, [0]), (1, [1]), (100, [100]), (101, [100, 1]), (200, [100, 100])]
)
def test_a_list_is_cut_into_pages_none_of_which_is_empty(count: int, pages_: list[int]) -> None:
    found, token = list(range(count)), ""
    sizes: list[int] = []
    seen: list[int] = []
    while not sizes or token:
        some, token = pages.cut(found, pages.asked([token] if token else []))
        sizes.append(len(some))
        seen += some
    assert sizes == pages_ and seen == found
