"""What an agent makes of what EC2 says of its instance's end, and the service that says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from harness.imds import FACTS, Imds, serve
from unit_agent.termination.notice import (
    ADVICE,
    ADVICE_KIND,
    KIND,
    LIFECYCLE,
    SPOT,
    Known,
    Look,
    Notice,
    Told,
    decide,
    ordered,
    read,
    staying,
)
from unitfleet.imds import Absent, MetadataService, Silent

NOW = 1_800_000_000.0
NONE: dict[str, str | None] = {SPOT: None, LIFECYCLE: None, ADVICE: None}


def time_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


AT = time_of(NOW + 120)
SPOT_END = Notice("spot: terminate", AT)


def action(word: str, at: str = AT) -> str:
    return json.dumps({"action": word, "time": at})


def looked(known: Known, answers: Mapping[str, str | None], drained: bool = False) -> tuple[Known, list[Told]]:
    known, told = decide(known, read(answers), NOW, "m1", drained=drained)
    return known, list(told)


@pytest.mark.parametrize(
    ("answers", "notice"),
    [
        ({SPOT: action("terminate")}, SPOT_END),
        ({SPOT: action("stop")}, Notice("spot: stop", AT)),
        ({SPOT: action("hibernate", "")}, Notice("spot: hibernate")),
        ({SPOT: action("terminate", "soon")}, Notice("spot: terminate")),
        ({LIFECYCLE: "Terminated"}, Notice("auto scaling: Terminated")),
        ({LIFECYCLE: "Warmed:Terminated"}, Notice("auto scaling: Warmed:Terminated")),
        ({LIFECYCLE: "InService"}, None),
        ({LIFECYCLE: "Detached"}, None),
        ({LIFECYCLE: "Terminated", SPOT: action("terminate")}, SPOT_END),
        ({ADVICE: '{"noticeTime": "2026-10-27T08:22:00Z"}'}, None),
    ],
)
def test_what_ends_an_instance_and_what_does_not(answers: dict[str, str], notice: Notice | None) -> None:
    look = read({**NONE, **answers})
    assert (look.notice, look.sure) == (notice, True)


@pytest.mark.parametrize("text", ["", "<html>log in</html>", "[]", '{"action": 7}', action("reboot"), "{" * 9999])
def test_what_nobody_can_read_is_neither_a_notice_nor_the_end_of_one(text: str) -> None:
    assert read({**NONE, SPOT: text}) == Look(None, sure=False)


@pytest.mark.parametrize("missing", [SPOT, LIFECYCLE])
def test_without_an_answer_nothing_is_known_to_be_over(missing: str) -> None:
    answers = {question: said for question, said in NONE.items() if question != missing}
    assert not read(answers).sure and not read({}).sure
    known = Known(notice=str(SPOT_END), drained=True)
    assert looked(known, answers, drained=True) == (known, [])
    assert read({**answers, SPOT: action("stop")}).notice is not None


def test_a_notice_is_told_once_with_the_time_that_is_left_and_asks_for_the_drain() -> None:
    known, told = looked(Known(), {**NONE, SPOT: action("terminate")})
    assert known.asks
    assert told == [Told(KIND, f"EC2 ends this instance in 120 s (spot: terminate at {AT}): it is to be drained")]
    assert looked(known, {**NONE, SPOT: action("terminate")}) == (known, [])


def test_auto_scaling_tells_no_time_and_the_event_says_so() -> None:
    _, told = looked(Known(), {**NONE, LIFECYCLE: "Terminated"})
    assert "EC2 ends this instance soon, it does not say when (auto scaling: Terminated)" in told[0].message
    _, told = looked(Known(), {**NONE, SPOT: action("stop", time_of(NOW - 9))})
    assert "ends this instance now" in told[0].message


def test_once_ordered_the_drain_is_not_asked_for_again_until_another_notice() -> None:
    known, _ = looked(Known(), {**NONE, SPOT: action("terminate")})
    known, told = ordered(known, "m1")
    assert not known.asks and "m1 is drained" in told.message
    known, said = looked(known, {**NONE, SPOT: action("terminate")}, drained=False)
    assert not known.asks and not said, "somebody took the drain back: that counts"
    known, said = looked(known, {**NONE, SPOT: action("terminate", time_of(NOW + 300))})
    assert known.asks and len(said) == 1


def test_half_an_answer_does_not_make_one_notice_into_another() -> None:
    both = {**NONE, SPOT: action("terminate"), LIFECYCLE: "Terminated"}
    known, _ = looked(Known(), both)
    known, _ = ordered(known, "m1")
    assert looked(known, {LIFECYCLE: "Terminated"}) == (known, [])


def test_a_notice_that_is_taken_back_is_told_and_the_host_stays_as_it_is() -> None:
    known = Known(notice=str(SPOT_END), drained=True, stays=("a.service",), advice="x")
    after, told = looked(known, NONE, drained=True)
    assert after == Known(advice="x")
    assert [each.message for each in told] == [
        f"EC2 took its notice back (spot: terminate at {AT}); m1 stays drained: unitctl machines undrain m1"
    ]
    _, told = looked(Known(notice=str(SPOT_END)), NONE, drained=False)
    assert "m1 is not drained" in told[0].message
    assert looked(after, NONE) == (after, [])


def test_an_order_that_comes_after_the_notice_was_taken_back_is_told_as_what_it_is() -> None:
    known, told = ordered(Known(), "m1")
    assert known == Known() and "took its notice back meanwhile: unitctl machines undrain m1" in told.message


def test_advice_is_told_once_and_moves_nothing() -> None:
    advised = {**NONE, ADVICE: '{"noticeTime": "2026-10-27T08:22:00Z"}'}
    known, told = looked(Known(), advised)
    assert not known.asks and [each.kind for each in told] == [ADVICE_KIND]
    assert looked(known, advised) == (known, [])
    again = {**NONE, ADVICE: '{"noticeTime": "2026-10-27T09:22:00Z"}'}
    assert len(looked(known, again)[1]) == 1
    assert looked(Known(), {**NONE, ADVICE: "gone"}) == (Known(), [])


def test_units_that_find_no_other_machine_are_named_once_each_with_why() -> None:
    known, (told,) = staying(Known(), {"b.service": "no rack=r1", "a.service": "no room"})
    assert told.kind == KIND
    assert "2 units find no other machine" in told.message
    assert "a.service (no room), b.service (no rack=r1)" in told.message
    assert staying(known, {"a.service": "no room"}) == (known, ())
    _, (told,) = staying(known, {"a.service": "no room", "c.service": "x"})
    assert "1 unit finds" in told.message and "a.service" not in told.message
    _, (told,) = staying(Known(), {f"u@{number}.service": "x" for number in range(100, 130)})
    assert "u@109.service (x) and 20 more" in told.message and "u@110" not in told.message


def test_a_fact_that_is_not_there_and_one_that_is_not_told_are_two_things() -> None:
    with serve(Imds({**FACTS, LIFECYCLE: "InService"}, faults={SPOT: 500})) as imds:
        service = MetadataService(imds.address)
        assert service.find(LIFECYCLE) == "InService"
        assert service.find(ADVICE) is None
        with pytest.raises(Silent, match="answers 500 to spot/instance-action"):
            service.find(SPOT)
    assert imds.asked[0] == "PUT /latest/api/token" and imds.asked.count("PUT /latest/api/token") == 1


def test_a_token_that_is_over_is_replaced() -> None:
    with serve(Imds({LIFECYCLE: "InService"})) as imds:
        service = MetadataService(imds.address)
        assert service.find(LIFECYCLE) == "InService"
        imds.token = "another"
        assert service.find(LIFECYCLE) == "InService"
        imds.faults = {LIFECYCLE: 401}
        with pytest.raises(Silent, match="answers 401"):
            service.find(LIFECYCLE)


def test_a_service_that_is_not_there_or_says_nothing_is_absent() -> None:
    with serve(Imds({LIFECYCLE: "InService"}, silent=True)) as imds:
        with pytest.raises(Absent, match="timed out"):
            MetadataService(imds.address, 0.1).find(LIFECYCLE)
    with pytest.raises(Absent, match="connection refused"):
        MetadataService(imds.address).find(LIFECYCLE)
    with pytest.raises(Absent):
        MetadataService("nowhere").find(LIFECYCLE)
