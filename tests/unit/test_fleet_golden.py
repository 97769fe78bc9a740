"""The fleet reading holds against what fleet's own functions answered, where the corpus is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unitfleet import names, unitfile, xfleet
from unitfleet.errors import InvalidName

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
GOLDEN = CORPUS / "fleet-golden.jsonl"
ORACLE = CORPUS / "fleet-oracle.jsonl"

pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="fleet's corpus is not beside the checkout")


def cases(op: str) -> list[tuple[dict[str, Any], Any]]:
    lines = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    return [(line["in"], line["out"]) for line in lines if line["in"]["op"] == op]


def test_every_text_is_parsed_serialised_and_hashed_as_fleet_does() -> None:
    wrong = []
    found = cases("unit_parse")
    for given, wanted in found:
        try:
            file = unitfile.parse(given["raw"])
        except unitfile.UnreadableUnit as error:
            got: dict[str, Any] = {"error": error.reason}
        else:
            got = {
                "contents": file.contents(),
                "description": file.description(),
                "hash": file.fleet_hash(),
                "options": [[option.section, option.name, option.value] for option in file.options],
                "serialized": file.serialize(),
            }
        if got != wanted:
            wrong.append((given["raw"][:200], got, wanted))
    assert len(found) == 25
    assert wrong == []


def test_every_name_is_judged_and_taken_apart_as_fleet_does() -> None:
    wrong = []
    found = cases("unit_name")
    for given, wanted in found:
        name = given["name"]
        try:
            unit = names.split(name)
            info: dict[str, Any] | None = {
                "full": unit.full,
                "instance": unit.instance,
                "is_instance": unit.is_instance,
                "is_template": unit.is_template,
                "name": unit.name,
                "prefix": unit.prefix,
                "template": unit.template,
            }
        except InvalidName:
            info = None
        if (names.fault(name), info) != (wanted["validate_error"], wanted["info"]):
            wrong.append((name, names.fault(name), info, wanted))
    assert len(found) == 39
    assert wrong == []


def test_every_glob_matches_as_in_fleet() -> None:
    found = cases("glob")
    wrong = [
        (given["pattern"], given["target"])
        for given, wanted in found
        if names.glob_match(given["pattern"], given["target"]) != wanted["match"]
    ]
    assert len(found) == 116
    assert wrong == []


def test_every_x_fleet_section_means_what_it_means_to_fleet() -> None:
    wrong = []
    found = cases("xfleet")
    for given, wanted in found:
        file = unitfile.parse(given["raw"])
        wants = xfleet.read(given["name"], file)
        got = {
            "conflicts": list(wants.conflicts),
            "global": wants.is_global,
            "has_machine_id": wants.machine_id is not None,
            "machine_id": wants.machine_id or "",
            "machine_of": list(wants.machine_of),
            "metadata": {key: sorted(values) for key, values in wants.metadata},
            "options_error": xfleet.options_error(file),
            "replaces": list(wants.replaces),
            "unknown_option": bool(wants.unknown),
        }
        wanted = {**wanted, "metadata": {key: sorted(values) for key, values in wanted["metadata"].items()}}
        if got != wanted:
            wrong.append((given, got, wanted))
    assert len(found) == 163
    assert wrong == []


def test_every_real_unit_means_what_it_meant_to_fleet() -> None:
    wrong: list[tuple[Any, ...]] = []
    lines = [json.loads(line) for line in ORACLE.read_text().splitlines()]
    for wanted in lines:
        raw = (CORPUS / wanted["path"]).read_bytes().decode("utf-8", "replace")
        try:
            file = unitfile.parse(raw)
        except unitfile.UnreadableUnit as error:
            if error.reason != wanted.get("error"):
                wrong.append((wanted["path"], error.reason))
            continue
        wants = xfleet.read(wanted["name"], file)
        got = {
            "conflicts": list(wants.conflicts),
            "global": wants.is_global,
            "hash": file.fleet_hash(),
            "machine_id": wants.machine_id or "",
            "machine_of": list(wants.machine_of),
            "metadata": {key: sorted(values) for key, values in wants.metadata},
            "replaces": list(wants.replaces),
        }
        asked = {key: wanted.get(key, "") for key in got}
        asked["metadata"] = {key: sorted(values) for key, values in asked["metadata"].items()}
        if got != asked:
            wrong.append((wanted["path"], got, asked))
    assert len(lines) > 200
    assert wrong == []
