"""A text that was judged for its user is not read again when its unit is placed, and messages name the file."""

from __future__ import annotations

from typing import Any

import pytest

from harness.builders import a_view
from unit_master.wishes import Moment, Write, decide, digest_of, standing
from unitfleet import accept
from unitfleet.api import Change
from unitfleet.errors import InvalidUnit
from unitfleet.model import TargetState

NAME = "once@7.service"


def judged(text: str, file: str = "") -> Write:
    view = a_view()
    change = Change(name=NAME, text=text, target=TargetState.LAUNCHED, file=file)
    decided = decide(view, standing(view, NAME), change, Moment(0.0, "i1"))
    assert isinstance(decided, Write)
    return decided


def test_a_unit_is_read_once_by_the_master_that_takes_and_places_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(unit: Any, text: str, *rest: Any) -> Any:
        read.append(text)
        return plain(unit, text, *rest)

    plain = accept._read
    monkeypatch.setattr(accept, "_read", counting)
    text = "[Service]\nExecStart=/bin/echo read-once\n"
    assert judged(text, "once@.service").result.warnings == ()
    view = a_view()
    view.texts[digest_of(text)] = text
    assert view.spec(NAME, digest_of(text)) is not None
    assert read == [text]


def test_warnings_and_refusals_name_the_file_that_the_user_has() -> None:
    [warning] = judged("[Service]\nExecStart=/bin/true\nNoSuchKey=1\n", "mine.service").result.warnings
    assert warning.startswith("mine.service:3:")
    with pytest.raises(InvalidUnit) as refused:
        judged("[Service]\nExecStart\n", "mine.service")
    assert refused.value.problems[0].startswith("mine.service:")
    with pytest.raises(InvalidUnit, match=r"no \[Container\] section"):
        judged("[Service]\nExecStart=/bin/true\n", "mine.container")
