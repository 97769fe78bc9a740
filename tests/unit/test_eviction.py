"""A unit of a higher priority finds room: who goes, in which order it happens, and where it is written."""

from __future__ import annotations

import msgspec
import pytest

from harness.builders import (
    GIB,
    Built,
    a_host,
    a_listing,
    a_machine,
    a_pending,
    a_placement,
    a_record,
    a_scene,
    a_state,
    a_unit,
    a_view,
    needs,
)
from unit_master.actions import Acknowledged, Evict, Pend, Place
from unit_master.apply import Scribe
from unit_master.eviction import Eviction, make_room
from unit_master.explain import explain
from unit_master.reconcile import plan_units
from unit_master.scene import Host, Scene, scene_of
from unitfleet import codec, keys
from unitfleet.model import Capacity, CopyPhase, Happening, OnLoss, Requirements, Stay, TargetState, Wanted
from unitfleet.store import Put

SMALL = Capacity(cpu=2, memory=4 * GIB, disk=10 * GIB)


def anybody(unit: str, machine: str) -> bool:
    return True


def room(unit: Requirements, *hosts: Host) -> Eviction | None:
    return make_room(unit, a_scene(*hosts), anybody)


def small(name: str, *units: Requirements) -> Host:
    return a_host(name, *units, capacity=SMALL)


DB = needs("db.service", cpu=2, priority=100)


@pytest.mark.parametrize(
    ("hosts", "goes"),
    [
        pytest.param([small("m1", needs("a.service", cpu=1))], ("m1", "a.service"), id="whoever is lower"),
        pytest.param([small("m1", needs("a.service", cpu=1, priority=100))], None, id="an equal stays"),
        pytest.param([small("m1", needs("a.service", cpu=1, is_global=True))], None, id="a global unit stays"),
        pytest.param(
            [
                small("m1", needs("a.service", cpu=1, priority=5)),
                small("m2", needs("b.service", cpu=1, priority=4)),
            ],
            ("m2", "b.service"),
            id="the lowest of all machines",
        ),
        pytest.param(
            [
                small("m1", *(needs(f"a{n}.service", cpu=0.5) for n in range(4))),
                small("m2", *(needs(f"b{n}.service", cpu=1) for n in range(2))),
            ],
            ("m2", "b0.service", "b1.service"),
            id="the fewest of equals",
        ),
        pytest.param(
            [
                small("m1", needs("a.service", cpu=1, strict=True)),
                small("m2", needs("b.service", cpu=1, priority=99)),
            ],
            ("m2", "b.service"),
            id="a strict unit only when nothing else helps",
        ),
        pytest.param(
            [small("m1", needs("a.service", cpu=1, strict=True))], ("m1", "a.service"), id="a strict one in need"
        ),
        pytest.param(
            [
                small("m1", needs("a.service", cpu=1, on_loss=OnLoss.WAIT)),
                small("m2", needs("b.service", cpu=1, priority=1), needs("c.service", cpu=1, priority=1)),
            ],
            ("m2", "b.service", "c.service"),
            id="one whose data is there only when nothing else helps",
        ),
        pytest.param(
            [small("m1", needs("a.service", cpu=1), needs("b.service", cpu=1, priority=200))],
            None,
            id="nobody for nothing",
        ),
        pytest.param(
            [a_host("m1", needs("a.service", cpu=1), capacity=SMALL, cordoned=True)],
            None,
            id="no machine that refuses it for other reasons",
        ),
        pytest.param(
            [small("m1", needs("a.service", cpu=0.1, conflicts=("db*",)))], ("m1", "a.service"), id="a conflict"
        ),
        pytest.param(
            [a_host("m1", needs("a.service", cpu=1), leaving=["a.service"], capacity=SMALL)],
            ("m1",),
            id="it waits for a copy that leaves already",
        ),
    ],
)
def test_room_is_made_by(hosts: list[Host], goes: tuple[str, ...] | None) -> None:
    assert room(DB, *hosts) == (Eviction(goes[0], goes[1:]) if goes else None)


def test_of_one_machine_the_lowest_go_and_no_more_than_needed() -> None:
    host = small(
        "m1",
        needs("a.service", cpu=1, priority=3),
        needs("b.service", cpu=0.5, priority=1),
        needs("c.service", cpu=0.5, priority=2),
    )
    one = msgspec.structs.replace(DB, cpu=1)
    assert room(one, host) == Eviction("m1", ("b.service", "c.service"))
    assert room(msgspec.structs.replace(DB, cpu=1.5), host) == Eviction("m1", ("a.service", "b.service"))


def test_room_is_made_for_a_disk_and_a_port_alike() -> None:
    host = small("m1", needs("a.service", disk=9 * GIB), needs("b.service", host_ports=((80, "tcp"),)))
    wish = needs("db.service", disk=5 * GIB, host_ports=((80, "tcp"),), priority=1)
    assert room(wish, host) == Eviction("m1", ("a.service", "b.service"))


# ------------------------------------------------------------------ in the leader's plan

WEB = a_unit("web.service", "CPU=3")
DB_UNIT = a_unit("db.service", "CPU=3\nPriority=100")
REASON = "evicted from m1 by db.service (priority 100)"


def after_it_was_evicted() -> Built:
    return a_record(
        keys.stay("web.service", 2), Stay(unit="web.service", machine="", epoch=2, at=0.0, reason=REASON)
    )


def test_a_unit_is_evicted_and_the_other_waits_until_that_is_acknowledged() -> None:
    view = a_view(a_machine("m1"), WEB, a_placement(WEB, "m1"), a_state(WEB, "m1"), DB_UNIT)
    evict, pend = plan_units(view, 0.0)
    assert evict == Evict("web.service", "m1", REASON)
    assert isinstance(pend, Pend)
    assert pend.pending.message == "waits until web.service has left m1, which makes room for its priority of 100"


def test_room_that_is_made_is_taken_by_nobody_else() -> None:
    leaving = [WEB, a_placement(WEB, "m1", epoch=2, wanted=Wanted.GONE, reason=REASON), a_state(WEB, "m1")]
    small_one = a_unit("aaa.service", "CPU=1")
    view = a_view(a_machine("m1"), *leaving, DB_UNIT, small_one, after_it_was_evicted())
    placed = [action for action in plan_units(view, 0.0) if isinstance(action, Place)]
    assert not placed
    told = {
        action.pending.unit: action.pending.message for action in plan_units(view, 0.0) if isinstance(action, Pend)
    }
    assert told["web.service"].startswith(f"{REASON}; no machine fits")
    assert told["db.service"].startswith("waits until web.service has left m1")
    assert told["aaa.service"].startswith("no machine fits")


def test_the_higher_one_takes_the_room_before_the_evicted_one_can() -> None:
    gone = a_placement(WEB, "m1", epoch=2, wanted=Wanted.GONE, reason=REASON)
    told = a_state(WEB, "m1", CopyPhase.GONE, epoch=2)
    view = a_view(a_machine("m1"), WEB, gone, told, DB_UNIT, after_it_was_evicted())
    acknowledged = plan_units(view, 0.0)
    assert Acknowledged("web.service", "m1") in acknowledged
    later = a_unit("zz.service", "CPU=3\nPriority=100")  # by name it would come after
    view = a_view(a_machine("m1"), WEB, a_pending(WEB, REASON), later, after_it_was_evicted())
    placed, pending = plan_units(view, 0.0)
    assert isinstance(placed, Place) and placed.unit == "zz.service"
    assert isinstance(pending, Pend) and pending.pending.message.startswith(
        f"{REASON}; no machine fits: 1 considered"
    )
    explained = explain(a_view(a_machine("m1"), WEB, Built(()), *_pended(pending)), "web.service")
    assert explained is not None and explained.summary.startswith(REASON)


def _pended(pend: Pend) -> tuple[Built, ...]:
    return (a_record(keys.pending(pend.pending.unit), pend.pending),)


def test_an_evicted_unit_goes_elsewhere_and_its_new_placement_says_why() -> None:
    gone = a_placement(WEB, "m1", epoch=2, wanted=Wanted.GONE, reason=REASON)
    view = a_view(
        a_machine("m1"),
        a_machine("m2", drivers=("process",)),
        WEB,
        gone,
        a_state(WEB, "m1"),
        after_it_was_evicted(),
    )
    [placed] = plan_units(view, 0.0)
    assert isinstance(placed, Place)
    assert (placed.machine, placed.moved_from) == ("m2", "m1")
    assert placed.reason.startswith(f"{REASON}; ")


def test_a_unit_that_was_stopped_and_started_since_is_not_said_to_be_evicted() -> None:
    view = a_view(a_machine("m1"), WEB, after_it_was_evicted())
    [placed] = plan_units(view, 0.0)
    assert isinstance(placed, Place) and "evicted" not in placed.reason


def test_a_unit_that_is_not_to_run_evicts_nobody() -> None:
    loaded = a_unit("db.service", "CPU=3\nPriority=100", target=TargetState.LOADED)
    view = a_view(a_machine("m1"), WEB, a_placement(WEB, "m1"), a_state(WEB, "m1"), loaded)
    assert [type(action) for action in plan_units(view, 0.0)] == [Pend]


def test_what_has_finished_is_not_evicted_for_it_would_run_again() -> None:
    job = a_unit("job.service", text="[Service]\nType=oneshot\nExecStart=/bin/true\n[X-Fleet]\nCPU=3\n")
    view = a_view(a_machine("m1"), job, a_placement(job, "m1"), a_state(job, "m1", CopyPhase.FINISHED), DB_UNIT)
    assert not [action for action in plan_units(view, 0.0) if isinstance(action, Evict)]


def test_what_is_placed_in_the_same_pass_is_not_evicted_in_it() -> None:
    peer = a_unit("peer.service")
    follower = a_unit("zz.service", "CPU=3\nPriority=9\nMachineOf=peer.service")
    view = a_view(a_machine("m1"), peer, a_placement(peer, "m1"), a_state(peer, "m1"), WEB, follower)
    actions = plan_units(view, 0.0)
    assert [type(action) for action in actions] == [Place, Pend]


def test_an_eviction_is_written_as_an_order_an_event_and_a_piece_of_history() -> None:
    view = a_view(a_machine("m1"), WEB, a_placement(WEB, "m1"), a_state(WEB, "m1"), epoch=7)
    [txn] = Scribe(view, "master-1", 50.0, lambda: 1).batches([Evict("web.service", "m1", REASON)], 40)
    written = {op.key: op.value for op in txn.ops if isinstance(op, Put)}
    stay = codec.decode(written[keys.stay("web.service", 8)], Stay, "")
    assert (stay.machine, stay.reason) == ("", REASON)
    events = [
        codec.decode(value, Happening, "")
        for key, value in written.items()
        if key.startswith(f"{keys.PREFIX}events/")
    ]
    assert [(event.kind, event.message) for event in events] == [("evicted", REASON)]
    assert txn.epoch == 8


def test_a_promise_is_forgotten_with_the_unit_that_has_it() -> None:
    view = a_view(a_machine("m1"), WEB, a_placement(WEB, "m1"), a_state(WEB, "m1"), DB_UNIT)
    scene = scene_of(view)
    plan_units(view, 0.0, None, scene)
    assert "db.service" in scene.hosts["m1"].units
    view.apply_listing(a_listing(a_machine("m1"), WEB, a_placement(WEB, "m1"), a_state(WEB, "m1")))
    scene.reseat(view, "db.service")
    scene.reseat(view, "web.service")
    assert content(scene) == content(scene_of(view))


def content(scene: Scene) -> tuple[object, ...]:
    return scene.hosts, scene.place, scene.seats, scene.entangled, scene.promised
