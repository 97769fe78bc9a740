"""Our rules against fleet's own AbleToRun: the same units on the same machine get the same answer.

fleet answers schedule, unschedule, or reschedule: the unit may come, and of the two that Replaces joins one is
moved away again. Ours names who moves: a unit that another here replaces does not come at all, and a unit that
one which came replaces is unsuitable from then on. `answer` takes both as fleet's reschedule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.builders import a_host, a_scene
from unit_master.rules import RULES, unsuitable
from unitfleet import unitfile, xfleet
from unitfleet.model import Requirements

GOLDEN = Path(__file__).parents[2].parent / "shared" / "corpus" / "fleet-golden.jsonl"


def wishes(name: str, text: str) -> Requirements:
    """Read what fleet reads of a unit; any driver will do, fleet has but one."""
    read = xfleet.read(name, unitfile.parse(text))
    return Requirements(
        unit=name,
        drivers=("process",),
        machine_id=read.machine_id or "",
        machine_of=read.machine_of,
        metadata=read.metadata,
        conflicts=read.conflicts,
        replaces=read.replaces,
        is_global=read.is_global,
    )


def answer(unit: Requirements, others: list[Requirements], machine: str, metadata: dict[str, str]) -> str:
    """Ask our rules and answer in fleet's words."""
    host = a_host(machine, *others, metadata=metadata)
    scene = a_scene(host)
    refused = [name for name, rule in RULES if rule(unit, host, scene) is not None]
    if refused == ["replaces"]:
        return "reschedule"
    if refused:
        return "unschedule"
    scene.settle(unit, host.id)
    replaced = [other for other in others if "is replaced by" in (unsuitable(other, host, scene) or "")]
    return "reschedule" if replaced else "schedule"


@pytest.mark.skipif(not GOLDEN.exists(), reason="fleet's corpus is not beside the checkout")
def test_every_case_of_fleet_gets_fleets_answer() -> None:
    lines = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    found = [(line["in"], line["out"]) for line in lines if line["in"]["op"] == "able_to_run"]
    wrong = []
    for given, out in found:
        job, machine = given["job"], given["machine"]
        got = answer(
            wishes(job["name"], job["raw"]),
            [wishes(unit["name"], unit["raw"]) for unit in given["units"]],
            machine["ID"],
            machine["Metadata"] or {},
        )
        if f"job_action_{got}" != out["action"]:
            wrong.append((given, got, out))
    assert len(found) == 255
    assert wrong == []


M1: dict[str, Any] = {"machine": "0123456789abcdef", "metadata": {"region": "eu", "disk": "ssd"}}


@pytest.mark.parametrize(
    ("fleet", "others", "wanted"),
    [
        pytest.param("", {}, "schedule", id="a unit without wishes runs anywhere"),
        pytest.param("MachineID=0123456789abcdef", {}, "schedule", id="pinned here by the whole id"),
        pytest.param("MachineID=01234567", {}, "schedule", id="pinned here by 8 characters"),
        pytest.param("MachineID=012345678", {}, "unschedule", id="not by 9"),
        pytest.param(
            "MachineMetadata=region=us\nMachineMetadata=region=eu", {}, "schedule", id="same key: any value"
        ),
        pytest.param(
            "MachineMetadata=region=eu\nMachineMetadata=disk=hdd", {}, "unschedule", id="keys: all of them"
        ),
        pytest.param("MachineOf=g.service", {}, "unschedule", id="a peer that is not here"),
        pytest.param("MachineOf=g.service", {"g.service": ""}, "schedule", id="a peer that is here"),
        pytest.param("Conflicts=g.*", {"g.service": ""}, "unschedule", id="its own Conflicts"),
        pytest.param("", {"g.service": "Conflicts=j.service"}, "unschedule", id="the other's Conflicts"),
        pytest.param("Conflicts=*", {"j.service": ""}, "schedule", id="never against itself"),
        pytest.param("Replaces=g.service", {"g.service": ""}, "reschedule", id="it replaces one here"),
        pytest.param("", {"g.service": "Replaces=j.service"}, "reschedule", id="one here replaces it"),
        pytest.param(
            "Replaces=g.service", {"g.service": "Replaces=j.service"}, "schedule", id="both replace: ignored"
        ),
        pytest.param(
            "Replaces=g.service",
            {"g.service": "Conflicts=j.service"},
            "unschedule",
            id="Conflicts before Replaces",
        ),
    ],
)
def test_fleets_rules_stated_here(fleet: str, others: dict[str, str], wanted: str) -> None:
    there = [wishes(name, f"[X-Fleet]\n{text}\n") for name, text in others.items()]
    assert answer(wishes("j.service", f"[X-Fleet]\n{fleet}\n"), there, **M1) == wanted
