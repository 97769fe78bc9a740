"""Which images machines are to hold, whose turn it is to pull, and what readiness means for placing."""

from __future__ import annotations

import math

import pytest

from harness.builders import Built, BuiltUnit, a_host, a_machine, a_record, a_scene, a_unit, a_view, needs
from unit_master.explain import explain
from unit_master.housekeeping import garbage
from unit_master.scheduler import Placed, Refused, in_words, place
from unit_master.view import ClusterView
from unit_master.views import machine_view
from unit_master.warming import FIRST, image_views, plan_warm_sets, reference_digest
from unitfleet import codec, keys
from unitfleet.model import Images, Pin, Presence, Record, TargetState, WarmImage, WarmSet
from unitfleet.store import Batch, Event, EventKind, KeyValue

APP = "registry:5000/app:1"
PINNED = "registry:5000/app@sha256:" + "a" * 64


def a_container(name: str = "ad@1.service", image: str = APP, more: str = "", fleet: str = "") -> BuiltUnit:
    text = f"[Container]\nImage={image}\n{more}\n[X-Fleet]\n{fleet}\n"
    return a_unit(name, text=text)


def a_warm(image: str, **where: str) -> Built:
    return a_record(keys.warm(reference_digest(image)), WarmImage(image=image, where=where))


def wanted(*built: Built) -> dict[str, tuple[str, ...]]:
    """Return the warm set of each machine."""
    return {planned.id: planned.images for planned in plan_warm_sets(a_view(*built))}


def write(view: ClusterView, key: str, record: Record) -> None:
    """Let a record be written to the store that the view is of."""
    at = view.revision + 1
    kv = KeyValue(key, codec.encode(record), at, at, 1)
    view.apply_batch(Batch(at, (Event(EventKind.PUT, kv),)))


# ---------------------------------------------------------------------- the warm set


def test_a_machine_is_to_hold_what_its_units_could_need() -> None:
    assert wanted(a_machine("m1"), a_machine("m2"), a_container()) == {"m1": (APP,), "m2": (APP,)}


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(a_container(fleet="MachineMetadata=zone=b"), id="it asks for other metadata"),
        pytest.param(a_container(fleet="MachineID=ffffffff"), id="it is pinned elsewhere"),
        pytest.param(a_container(fleet="Warm=no"), id="it says Warm=no"),
        pytest.param(a_container(more="Pull=never"), id="it is never to be pulled"),
        pytest.param(a_container("ad@.service"), id="it is a template"),
        pytest.param(
            a_unit("ad@1.service", text=f"[Container]\nImage={APP}\n", target=TargetState.LOADED), id="stopped"
        ),
        pytest.param(a_unit(), id="it pulls nothing"),
        pytest.param(a_container(image="registry/%H:1"), id="its image is another on each host"),
    ],
)
def test_an_image_is_not_warmed_where(unit: Built) -> None:
    assert wanted(a_machine("m1", metadata={"zone": "a"}), unit) == {"m1": ()}


def test_instances_that_ask_the_same_want_one_image() -> None:
    units = [a_container(f"ad@{number}.service") for number in range(50)]
    assert wanted(a_machine("m1"), *units) == {"m1": (APP,)}


def test_a_pinned_image_is_warmed_by_its_digest() -> None:
    unit = a_container()
    pin = a_record(keys.pin(unit.unit.spec), Pin(spec=unit.unit.spec, image=PINNED))
    assert wanted(a_machine("m1"), unit, pin) == {"m1": (PINNED,)}


def test_an_image_that_was_built_on_one_machine_is_warmed_nowhere() -> None:
    unit = a_container()
    pin = a_record(keys.pin(unit.unit.spec), Pin(spec=unit.unit.spec, image="sha256:" + "b" * 64))
    assert wanted(a_machine("m1"), unit, pin) == {"m1": ()}


def test_an_ordered_image_is_warmed_on_the_machines_with_its_metadata() -> None:
    machines = a_machine("m1", metadata={"pool": "web"}), a_machine("m2", ordered={"pool": "web"}), a_machine("m3")
    assert wanted(*machines, a_warm(APP, pool="web")) == {"m1": (APP,), "m2": (APP,), "m3": ()}


def test_an_image_that_a_machines_own_settings_name_is_warmed_there_alone() -> None:
    told, other = a_machine("m1", warm=(APP,)), a_machine("m2")
    assert wanted(told, other) == {"m1": (APP,), "m2": ()}
    assert wanted(told, other, a_container()) == {"m1": (APP,), "m2": (APP,)}
    (shown,) = image_views(a_view(told, other, a_record(keys.warm_set("m1"), WarmSet(id="m1", images=(APP,)))))
    assert (shown.image, shown.by_settings, shown.ordered) == (APP, True, False)
    assert [machine.machine for machine in shown.machines] == ["m1"]


def test_a_machine_without_docker_or_that_is_away_is_told_nothing() -> None:
    machines = a_machine("m1", drivers=("process",)), a_machine("m2", present=False)
    assert wanted(*machines, a_container()) == {}


def test_nothing_is_written_that_stands_so_already() -> None:
    view = a_view(a_machine("m1"), a_container())
    for planned in plan_warm_sets(view):
        write(view, keys.warm_set(planned.id), planned)
    assert plan_warm_sets(view) == []


def test_a_new_agent_process_is_told_anew() -> None:
    known = a_record(keys.warm_set("m1"), WarmSet(id="m1", nonce="before", images=(), turns=()))
    assert [planned.nonce for planned in plan_warm_sets(a_view(a_machine("m1", nonce="now"), known))] == ["now"]


def test_the_warm_set_of_a_removed_machine_is_cleared() -> None:
    left = a_record(keys.warm_set("gone"), WarmSet(id="gone"))
    kept = a_record(keys.warm_set("m1"), WarmSet(id="m1"))
    assert list(garbage(a_view(a_machine("m1"), left, kept), 0.0)) == [keys.warm_set("gone")]


# ---------------------------------------------------------------------- turns


def turns(view: ClusterView) -> list[str]:
    return sorted(planned.id for planned in plan_warm_sets(view) if APP in planned.turns)


def pull_all(view: ClusterView) -> list[int]:
    """Let machines pull in turns until none lacks the image; return how many pulled in each wave."""
    waves: list[int] = []
    while True:
        for planned in plan_warm_sets(view):
            write(view, keys.warm_set(planned.id), planned)
        going = [id for id, entry in view.warm_sets.items() if entry.value.turns]
        if not going:
            return waves
        waves.append(len(going))
        for id in going:
            write(view, keys.images(id), Images(id=id, held=(APP,)))


@pytest.mark.parametrize("machines", [1, 2, 3, 16, 100])
def test_the_fleet_pulls_in_waves_that_double(machines: int) -> None:
    waves = pull_all(a_view(*(a_machine(f"m{number:03}") for number in range(machines)), a_warm(APP)))
    assert sum(waves) == machines
    assert len(waves) <= math.ceil(math.log2(machines or 1)) + 1
    held = 0
    for wave in waves:
        assert wave <= max(FIRST, held)
        held += wave


def test_a_machine_that_pulls_keeps_its_turn() -> None:
    machines = [a_machine(f"m{number}") for number in range(4)]
    pulling = [a_record(keys.images(f"m{n}"), Images(id=f"m{n}", pulling={APP: 10})) for n in (2, 3)]
    assert turns(a_view(*machines, a_warm(APP), *pulling)) == ["m2", "m3"]


def test_a_machine_that_failed_lets_the_others_try_and_comes_again() -> None:
    view = a_view(*(a_machine(f"m{number}") for number in range(4)), a_warm(APP))
    seen: list[str] = []
    for count in range(6):
        for machine in turns(view):
            seen.append(machine)
            write(view, keys.images(machine), Images(id=machine, missing={APP: f"refused (tried {count} times)"}))
    assert set(seen) == {"m0", "m1", "m2", "m3"}
    assert all(seen.count(machine) == 3 for machine in set(seen)), seen


# ---------------------------------------------------------------------- what a warming machine is for


def a_warming_machine(name: str = "m1", warming: str = "0 of 2 images") -> tuple[Built, Built]:
    presence = Presence(
        id=name,
        name=name,
        nonce="n1",
        boot_id="b1",
        fingerprint="f1",
        address="127.0.0.1",
        port=1,
        drivers=("docker", "process"),
        warming=warming,
    )
    return a_machine(name), a_record(keys.presence(name), presence)


def test_a_warming_machine_takes_no_new_container_and_says_what_it_lacks() -> None:
    host = a_host("m1")
    host.warming = "2 of 5 images"
    refused = place(needs(image=APP), a_scene(host))
    assert isinstance(refused, Refused)
    assert [(refusal.rule, refusal.why) for refusal in refused.refusals] == [
        ("ready", "is warming: 2 of 5 images")
    ]
    assert refused.message == "no machine fits: 1 considered: 1 is warming"
    assert refused.hint == "wait until m1 is warm (2 of 5 images)"


def test_a_warming_machine_takes_what_pulls_nothing_and_keeps_what_it_has() -> None:
    app = needs(image=APP)
    host = a_host("m1", app)
    host.warming = "2 of 5 images"
    assert isinstance(place(needs("b.service"), a_scene(host)), Placed)
    assert isinstance(place(app, a_scene(host)), Placed)


@pytest.mark.parametrize(("image", "fits"), [(APP, True), (PINNED, False)], ids=["the tag", "another digest"])
def test_a_warming_machine_takes_a_container_whose_image_it_holds_already(image: str, fits: bool) -> None:
    host = a_host("m1")
    host.warming, host.images = "1 of 5 images", frozenset({image})
    assert isinstance(place(needs(image=APP), a_scene(host)), Placed) is fits
    scene = a_scene(host)
    scene.pinned["a.service"] = PINNED
    assert isinstance(place(needs(image=APP), scene), Placed) is not fits


def test_a_warming_machine_is_shown_as_such() -> None:
    shown = machine_view(a_view(*a_warming_machine()), "m1")
    assert shown is not None
    assert (shown.status, shown.reason) == ("warming", "does not hold its warm set: 0 of 2 images")


def test_explain_names_the_machine_that_warms() -> None:
    told = explain(a_view(*a_warming_machine(), a_container("a.service")), "a.service")
    assert told is not None
    assert told.machines[0].why == "is warming: 0 of 2 images"


# ---------------------------------------------------------------------- scheduling


def test_of_machines_alike_the_one_that_holds_the_image_is_chosen() -> None:
    hosts = [a_host("m1"), a_host("m2"), a_host("m3")]
    hosts[1].images = frozenset({APP})
    decided = place(needs(image=APP), a_scene(*hosts))
    assert isinstance(decided, Placed)
    assert (decided.machine, decided.reason) == ("m2", "least loaded of 3 that fit, and holds its image")
    assert in_words(decided.scores[0], needs(image=APP), a_scene(*hosts))[-1] == "holds its image"


def test_load_comes_before_the_image() -> None:
    busy, idle = a_host("m1", needs("b.service")), a_host("m2")
    busy.images = frozenset({APP})
    decided = place(needs(image=APP), a_scene(busy, idle))
    assert isinstance(decided, Placed)
    assert decided.machine == "m2"


def test_the_image_that_is_pinned_for_the_text_is_the_one_looked_for() -> None:
    tag, digest = a_host("m1"), a_host("m2")
    tag.images, digest.images = frozenset({APP}), frozenset({PINNED})
    scene = a_scene(tag, digest)
    scene.pinned["a.service"] = PINNED
    decided = place(needs(image=APP), scene)
    assert isinstance(decided, Placed)
    assert decided.machine == "m2"


# ---------------------------------------------------------------------- what is shown


def test_an_image_is_asked_for_by_its_name_or_its_digest() -> None:
    unit = a_container()
    pin = a_record(keys.pin(unit.unit.spec), Pin(spec=unit.unit.spec, image=PINNED))
    told = a_record(keys.warm_set("m1"), WarmSet(id="m1", images=(PINNED,)))
    held = a_record(keys.images("m1"), Images(id="m1", held=(PINNED,)))
    view = a_view(a_machine("m1"), unit, pin, told, held)
    for asked in ("", APP, PINNED):
        (shown,) = image_views(view, asked)
        assert (shown.image, shown.names, shown.units) == (PINNED, (APP,), ("ad@1.service",))
        assert [machine.state for machine in shown.machines] == ["held"]
    assert image_views(view, "other:1") == []


def test_a_record_under_another_image_s_key_is_left_alone() -> None:
    view = a_view(a_machine("m1"), a_record(keys.warm("0" * 64), WarmImage(image=APP)))
    assert list(view.bad) == [keys.warm("0" * 64)]
    assert wanted(a_machine("m1"), a_record(keys.warm("0" * 64), WarmImage(image=APP))) == {"m1": ()}
