"""Every real unit that fleet took is taken through fleet's API, with fleet's hash; where the corpus is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unit_master.api.fleet import shown
from unit_master.api.fleet.wanted import text_of
from unitfleet import accept, unitfile, xfleet
from unitfleet.errors import InvalidUnit
from unitfleet.fleetapi import Option

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
ORACLE = CORPUS / "fleet-oracle.jsonl"

pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason="fleet's corpus is not beside the checkout")


def test_every_real_unit_is_taken_with_fleets_hash_and_meaning() -> None:
    wrong = []
    lines = [json.loads(line) for line in ORACLE.read_text().splitlines()]
    for wanted in lines:
        if "error" in wanted:
            continue
        file = unitfile.parse((CORPUS / wanted["path"]).read_bytes().decode("utf-8", "replace"))
        options = tuple(Option(section=o.section, name=o.name, value=o.value) for o in file.options)
        try:
            text = text_of(wanted["name"], options)
        except InvalidUnit as error:
            wrong.append((wanted["path"], error.message))
            continue
        needs, wants = accept.read(wanted["name"], text).requirements, xfleet.read(wanted["name"], file)
        if shown.fleet_hash(text) != wanted["hash"] or shown.options(text) != tuple(sorted_by_section(options)):
            wrong.append((wanted["path"], "its hash or its options differ"))
        if (needs.metadata, needs.conflicts, needs.is_global) != (
            wants.metadata,
            wants.conflicts,
            wants.is_global,
        ):
            wrong.append((wanted["path"], "what it asks for differs"))
    assert len(lines) > 200
    assert wrong == []


def sorted_by_section(options: tuple[Option, ...]) -> list[Option]:
    """Return options as fleet writes them: sections in the order in which they come first."""
    sections = list(dict.fromkeys(option.section for option in options))
    return sorted(options, key=lambda option: sections.index(option.section))
