"""The scene that the leader keeps up is the one it would make anew, and what it leaves out has nothing to do."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.builders import Built, a_listing, a_machine, a_pending, a_placement, a_state, a_unit, a_view
from unit_master.actions import Pend, UnitAction
from unit_master.agenda import MOST_UNITS, WHOLE_EVERY_S, Agenda
from unit_master.reconcile import plan_units
from unit_master.scene import Scene, scene_of
from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.model import Capacity, CopyPhase, MachineStatus, TargetState, Wanted
from unitfleet.store import KeyValue, Listing

GIB = 1024**3
TEXTS = [
    "[Service]\nExecStart=/bin/true\n",
    "[Service]\nExecStart=/bin/true\n[X-Fleet]\nConflicts=b*\n",
    "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMachineOf=a.service\n",
    "[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\n",
    "[Service]\nExecStart=/bin/true\nMemoryMin=1G\n[X-Fleet]\nReplaces=a.service\n",
    "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMemory=1G\nMachineMetadata=zone=a\n",
    "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMemory=4G\nPriority=9\nMachineMetadata=zone!=b\n",
]
UNITS = [f"{letter}.service" for letter in "abcd"]
MACHINES = ["m1", "m2", "m3"]


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    """A store in any state."""
    built: list[Built] = []
    for machine in MACHINES:
        built.append(
            a_machine(
                machine,
                status=draw(st.sampled_from([MachineStatus.READY, *MachineStatus])),
                present=draw(st.booleans()),
                metadata={"zone": draw(st.sampled_from("ab"))} if machine != "m3" else {},
                cordoned=draw(st.booleans()),
                drained=draw(st.sampled_from([False, False, True])),
                measured=draw(
                    st.sampled_from([None, Capacity(cpu=1, memory=GIB), Capacity(cpu=4, memory=8 * GIB)])
                ),
            )
        )
    for name in UNITS:
        target = draw(st.sampled_from([None, *TargetState]))
        if target is None:
            continue
        unit = a_unit(name, draw(st.sampled_from(TEXTS)), target=target)
        built.append(unit)
        for machine in draw(st.sets(st.sampled_from(MACHINES), max_size=2)):
            epoch = draw(st.integers(1, 9))
            wanted = draw(st.sampled_from([*Wanted]))
            built.append(a_placement(unit, machine, epoch=epoch, wanted=wanted))
            if draw(st.booleans()):
                built.append(a_state(unit, machine, phase=draw(st.sampled_from([*CopyPhase])), epoch=epoch))
    return a_listing(*built, epoch=9)


def after(listing: Listing, former: Listing, revision: int) -> Listing:
    """Give what changed a revision of its own, as a store would."""
    known = {item.key: item for item in former.items}
    items = tuple(
        known[item.key]
        if item.key in known and known[item.key].value == item.value
        else KeyValue(item.key, item.value, revision, revision, 1, 0)
        for item in listing.items
    )
    return Listing(revision, items)


def content(scene: Scene) -> dict[str, Any]:
    """What a scene says, without how it keeps up."""
    told = {each.name: getattr(scene, each.name) for each in fields(scene)}
    for kept in ("touched", "altered", "tallies", "neighbours", "rankings"):
        del told[kept]
    told["groups"] = {}
    return told


@given(st.lists(listings(), min_size=2, max_size=4))
def test_a_scene_kept_up_with_changes_is_the_scene_made_anew(stores: list[Listing]) -> None:
    view, agenda, former = ClusterView(), Agenda(), Listing(1, ())
    for number, listing in enumerate(stores, start=2):
        former = after(listing, former, number)
        agenda.note(view.apply_listing(former))
        scene, names = agenda.turn(view, 1.0)
        for waiting in list(scene.promised):
            scene.unpromise(waiting)
        assert content(scene) == content(scene_of(view))
        if actions := plan_units(view, 0.0, names, scene):
            agenda.decided(names, actions)  # nothing of it is carried out: what was drafted is undone


@given(listings(), listings())
def test_what_a_change_calls_for_is_about_units_that_it_opened(first: Listing, second: Listing) -> None:
    view, agenda = ClusterView(), Agenda()
    one = after(first, Listing(1, ()), 2)
    agenda.note(view.apply_listing(one))
    agenda.turn(view, 1.0)
    open_still = {about(action) for action in plan_units(view, 0.0)}
    agenda.note(view.apply_listing(after(second, one, 3)))
    _, names = agenda.turn(view, 1.0)
    for action in plan_units(view, 0.0):
        assert about(action) in {*names, *open_still, ""}


def about(action: UnitAction) -> str:
    """Return the unit that an action is about, "" for a text's pin."""
    return action.pending.unit if isinstance(action, Pend) else getattr(action, "unit", "")


def test_what_was_not_carried_out_stays_open_and_a_turn_has_an_end() -> None:
    units = [a_unit(f"job@{number}.service") for number in range(MOST_UNITS + 10)]
    view, agenda = a_view(a_machine(), *units), Agenda()
    agenda.note(None)
    scene, first = agenda.turn(view, 1.0)
    assert len(first) == MOST_UNITS and not agenda.is_done
    actions = plan_units(view, 0.0, first, scene)
    assert len(actions) == MOST_UNITS
    agenda.decided(first, actions)
    scene, second = agenda.turn(view, 1.1)
    assert second[:10] == sorted({unit.unit.name for unit in units} - set(first)), "the longest open comes first"
    assert not any(scene.hosts["m1"].units), "what was drafted and not carried out is undone"


def test_a_new_state_is_a_matter_of_its_unit_alone_and_time_opens_all() -> None:
    units = [a_unit(f"job@{number}.service") for number in range(3)]
    view, agenda = a_view(a_machine(), *units, *(a_placement(unit, "m1") for unit in units)), Agenda()
    agenda.note(None)
    assert len(agenda.turn(view, 1.0)[1]) == 3
    agenda.note([keys.state("m1", "job@1.service"), keys.event(1, "w", 1), keys.EPOCH])
    assert agenda.turn(view, 2.0)[1] == ["job@1.service"]
    assert agenda.turn(view, 2.0)[1] == []
    assert len(agenda.turn(view, 1.0 + WHOLE_EVERY_S)[1]) == 3
    agenda.note([keys.presence("m1")])
    assert len(agenda.turn(view, 32.0)[1]) == 3


def test_a_machine_that_changes_opens_those_that_have_to_do_with_it_and_those_that_wait_for_one() -> None:
    here, there, waits, fails = (a_unit(f"{name}.service") for name in ("here", "there", "waits", "fails"))
    view = a_view(
        *(a_machine("m1"), a_machine("m2"), a_machine("m3")),
        *(here, a_placement(here, "m1")),
        *(there, a_placement(there, "m2"), a_state(there, "m2")),
        *(waits, a_pending(waits, "no room")),
        *(fails, a_placement(fails, "m3"), a_state(fails, "m3", phase=CopyPhase.FAILED)),
    )
    agenda = Agenda()
    agenda.note(None)
    assert set(agenda.turn(view, 1.0)[1]) == {"here.service", "waits.service", "fails.service"}, "there is at rest"
    for kind in (keys.presence, keys.roster, keys.machine_spec):
        agenda.note([kind("m1")])
        assert set(agenda.turn(view, 2.0)[1]) == {"here.service", "waits.service", "fails.service"}


def test_who_plainly_is_at_rest_is_not_opened_by_time() -> None:
    runs, stopped = a_unit("runs.service"), a_unit("stopped.service", target=TargetState.LOADED)
    seen = (a_placement(unit, "m1") for unit in (runs, stopped))
    view, agenda = a_view(a_machine(), runs, stopped, *seen, a_state(runs, "m1"), a_state(stopped, "m1")), Agenda()
    agenda.note(None)
    assert agenda.turn(view, 1.0)[1] == ["stopped.service"]


def test_a_follower_is_opened_when_its_peer_moves_and_not_otherwise() -> None:
    peer, follower = a_unit("peer.service"), a_unit("with.service", "MachineOf=peer.service")
    view = a_view(a_machine(), *(item for unit in (peer, follower) for item in (unit, a_placement(unit, "m1"))))
    agenda = Agenda()
    agenda.note(None)
    agenda.turn(view, 1.0)
    agenda.note([keys.unit("other.service")])
    assert "with.service" not in agenda.turn(view, 2.0)[1]
    agenda.note([keys.placement("m1", "peer.service")])
    assert "with.service" in agenda.turn(view, 3.0)[1]


def test_room_that_comes_opens_who_waits_and_who_depends_on_others() -> None:
    waits, plain = a_unit("waits.service"), a_unit("plain.service")
    everywhere, apart = a_unit("everywhere.service", "Global=true"), a_unit("apart.service", "Conflicts=other*")
    view = a_view(
        a_machine(),
        *(waits, a_pending(waits, "no room")),
        *(item for unit in (plain, everywhere, apart) for item in (unit, a_placement(unit, "m1"))),
    )
    agenda = Agenda()
    agenda.note(None)
    assert len(agenda.turn(view, 1.0)[1]) == 4
    for noted in (keys.resources("m1"), keys.placement("m1", "gone.service"), keys.unit("new.service")):
        agenda.note([noted])
        names = agenda.turn(view, 2.0)[1]
        assert {"waits.service", "everywhere.service"} <= set(names)
        assert "plain.service" not in names and "apart.service" not in names
    agenda.note([keys.unit("plain.service")])  # whoever names others may have to leave for it
    assert "apart.service" in agenda.turn(view, 2.5)[1]
    agenda.note([keys.unit("apart.service")])  # whoever it names may have to leave
    assert "plain.service" in agenda.turn(view, 3.0)[1]
