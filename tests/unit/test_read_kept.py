"""A text read for one instance is read for its kin, and nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitfleet import accept
from unitfleet.accept import read, read_kept
from unitfleet.errors import InvalidUnit

FILES = sorted((Path(__file__).parent / "unitfiles").rglob("*.*"))
NAMES = ["a.service", "web@1.service", "web@x-2.service", "web@.service", "a-b.timer", "t@1.socket"]


def told(reader: object, name: str, text: str) -> object:
    try:
        return reader(name, text)  # type: ignore[operator]
    except InvalidUnit as error:
        return (error.message, error.problems)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_kept_reading_is_the_reading(file: Path) -> None:
    text = file.read_text()
    for name in NAMES * 2:
        assert told(read_kept, name, text) == told(read, name, text)


def test_instances_of_one_text_are_read_once_unless_it_speaks_of_the_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []

    def counting(unit: object, *rest: object) -> object:
        names.append(str(unit))
        return plain(unit, *rest)  # type: ignore[arg-type]

    plain = accept._read
    monkeypatch.setattr(accept, "_read", counting)
    for number in range(9):
        spec = read_kept(f"job@{number}.service", "[Service]\nExecStart=/bin/kin\n")
        assert (spec.name, spec.requirements.unit) == (f"job@{number}.service",) * 2
    assert len(names) == 1
    for number in range(9):
        assert str(number) in repr(
            read_kept(f"job@{number}.service", "[Service]\nExecStart=/bin/kin %i\n").service
        )
    assert len(names) == 10
