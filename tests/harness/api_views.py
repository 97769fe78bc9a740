"""Builders of what the API shows: units, copies, machines, and the looks a unit goes through."""

from __future__ import annotations

import hashlib
from typing import Any

from unitfleet.api import ClusterStatus, CopyView, Explanation, MachineView, RuleVerdict, UnitView
from unitfleet.model import Capacity, Pending, Port, RuleCount, TargetState

Look = dict[str, Any]  # what changes of a UnitView

TEXT = "[Service]\nExecStart=/bin/sleep 100\n"


def unit(name: str, *, text: str = TEXT, **fields: Any) -> UnitView:
    """A unit, inactive unless said otherwise."""
    look: Look = {
        "name": name,
        "target": TargetState.INACTIVE,
        "phase": "inactive",
        "settled": True,
        "ok": True,
        "why": "",
        "since": 0.0,
        "spec": hashlib.sha256(text.encode()).hexdigest(),
        "incarnation": "i1",
        "restart": 0,
        "is_global": False,
        "is_template": "@." in name,
        "description": "",
        "rev": 1,
    }
    return UnitView(**{**look, **fields})


def copy(machine: str, phase: str, **fields: Any) -> CopyView:
    """One machine's copy."""
    look: Look = {
        "machine": f"{machine}-0123456789abcdef",
        "machine_name": machine,
        "machine_status": "ready",
        "wanted": "launched",
        "epoch": 7,
        "reason": "least loaded",
        "phase": phase,
        "load": "loaded",
        "active": "active" if phase == "running" else "inactive",
        "sub": phase,
    }
    return CopyView(**{**look, **fields})


def placed(machine: str) -> Look:
    """Placed, not yet reported."""
    return {"phase": "placed", "settled": False, "ok": False, "copies": (copy(machine, ""),)}


def pulling(machine: str, percent: int) -> Look:
    """On its way, with the progress of the pull."""
    return {
        "phase": "pulling",
        "settled": False,
        "ok": False,
        "copies": (copy(machine, "pulling", progress=percent),),
    }


def starting(machine: str, why: str = "") -> Look:
    """Started and not yet up."""
    return {"phase": "starting", "settled": False, "ok": False, "why": why, "copies": (copy(machine, "starting"),)}


def running(machine: str, port: int = 8081, **fields: Any) -> Look:
    """As wanted."""
    answers = {"address": "10.0.0.2", "ports": (Port(host=port, container=80),)}
    here = copy(machine, "running", **{**answers, **fields})
    return {"phase": "running", "settled": True, "ok": True, "why": "", "pending": None, "copies": (here,)}


def failed(machine: str, message: str) -> Look:
    """Failed for good."""
    here = copy(machine, "failed", active="failed", sub="failed", message=message)
    return {"phase": "failed", "settled": True, "ok": False, "why": message, "copies": (here,)}


def pending(name: str, *refused: tuple[str, int, str], considered: int, hint: str = "") -> Look:
    """Refused by every machine."""
    counts = tuple(RuleCount(rule=rule, machines=count, example=example) for rule, count, example in refused)
    why = Pending(unit=name, considered=considered, refused=counts, hint=hint, message="no machine fits")
    return {
        "phase": "pending",
        "settled": False,
        "ok": False,
        "why": "no machine fits",
        "copies": (),
        "pending": why,
    }


def machine(name: str, **fields: Any) -> MachineView:
    """A ready machine."""
    look: Look = {
        "id": f"{name}-0123456789abcdef",
        "name": name,
        "status": "ready",
        "address": "10.0.0.2",
        "metadata": {"region": "eu"},
        "cordoned": False,
        "drained": False,
        "drivers": ("process",),
        "versions": {"agent": "0.1.0"},
        "capacity": Capacity(cpu=4, memory=8 << 30),
        "reserved": Capacity(cpu=0.5),
        "used": Capacity(cpu=0.1, memory=1 << 30),
        "units": 0,
    }
    return MachineView(**{**look, **fields})


def explanation(view: UnitView) -> Explanation:
    """An explanation with one machine that fits and one that does not."""
    machines = (
        RuleVerdict(machine="a1", machine_name="m1", refused_by="", why="", score=("fewest units",), chosen=True),
        RuleVerdict(machine="b2", machine_name="m2", refused_by="metadata", why="region=eu not found"),
    )
    return Explanation(
        name=view.name,
        rev=view.rev,
        summary="runs on m1: the only machine that fits",
        machines=machines,
        hint="set region=eu on m2",
        unit=view,
    )


def cluster(rev: int, attention: tuple[UnitView, ...]) -> ClusterStatus:
    """A cluster that lost a machine."""
    return ClusterStatus(
        id="c-1",
        rev=rev,
        leader="master-1",
        leader_since=1000.0,
        masters=("master-1", "master-2"),
        store_version="3.4.23",
        store_size=20480,
        machines={"ready": 2, "lost": 1},
        units={"running": 1, "pending": 1},
        brake="off",
        brake_why="",
        suspect=(),
        lost=("m3",),
        attention=attention,
    )
