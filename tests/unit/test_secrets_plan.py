"""Which secrets are sealed for which machines, and what keeps a unit from being placed."""

from __future__ import annotations

import pytest

from harness.builders import (
    Built,
    BuiltUnit,
    a_host,
    a_machine,
    a_placement,
    a_record,
    a_scene,
    a_unit,
    a_view,
    needs,
)
from unit_master.rules import secrets_at_hand
from unit_master.scene import scene_of
from unit_master.scheduler import Refused, place
from unit_master.secrets.plan import CONCERNS, Seal, Unseal, plan_sealed, secret_views
from unitfleet import keys
from unitfleet.model import IdentityRecord, Sealed, Secret, Wanted

OURS = "aa" * 32
M1, M2 = a_machine("m1", public_key="11" * 32), a_machine("m2", public_key="22" * 32)
DB = Secret(name="db", version=2, id="i2", key=OURS, sealed="…")


def secret(value: Secret = DB) -> Built:
    return a_record(keys.secret(value.name), value)


def held(
    machine: str, *, id: str = "i2", key: str = "", why: str = "", tried: str = "", name: str = "db"
) -> Built:
    own = key or {"m1": "11", "m2": "22"}[machine] * 32
    return a_record(
        keys.sealed(machine, name),
        Sealed(machine=machine, name=name, version=1, id=id, key=own, why=why, tried=tried),
    )


def unit() -> BuiltUnit:
    return a_unit(fleet="Secret=db")


def planned(*built: Built, key: str = OURS) -> list[str]:
    found = plan_sealed(a_view(secret(), M1, M2, *built), key)
    return [f"{'seal' if isinstance(one, Seal) else 'take'} {one.machine}" for one in found]


def test_a_secret_is_sealed_for_the_machine_that_needs_it_alone() -> None:
    one = unit()
    assert planned(one, a_placement(one, "m1")) == ["seal m1"]
    assert planned(one, a_placement(one, "m1"), held("m1")) == []
    assert planned(one) == []


def test_a_machine_that_was_shut_out_is_given_nothing_and_what_it_had_is_taken_back() -> None:
    one = unit()
    record = IdentityRecord(name="m1", role="agent", key="k", expires_at=1e12, denied=True)
    shut_out = a_record(keys.identity("agent", "m1"), record)
    assert planned(one, a_placement(one, "m1"), shut_out) == []
    assert planned(one, a_placement(one, "m1"), held("m1"), shut_out) == ["take m1"]
    assert keys.split(keys.identity("agent", "m1"))[0] in CONCERNS
    hosts = scene_of(a_view(M1, M2, shut_out)).hosts
    assert {host.id: host.shut_out for host in hosts.values()} == {"m1": True, "m2": False}


def test_a_unit_that_moves_takes_its_secrets_along_and_leaves_none() -> None:
    one = unit()
    there = a_placement(one, "m1", wanted=Wanted.GONE), held("m1"), a_placement(one, "m2", epoch=2)
    assert planned(one, *there) == ["take m1", "seal m2"]


@pytest.mark.parametrize(
    ("there", "steps"),
    [
        pytest.param(held("m1", id="i1"), ["seal m1"], id="a new value is sealed anew"),
        pytest.param(held("m1", key="33" * 32), ["seal m1"], id="a machine with a new key gets it anew"),
        pytest.param(
            held("m1", why="x", tried="bb" * 32),
            ["seal m1"],
            id="a master that has the key mends what another could not",
        ),
    ],
)
def test_what_is_outdated_is_sealed_anew(there: Built, steps: list[str]) -> None:
    one = unit()
    assert planned(one, a_placement(one, "m1"), there) == steps


@pytest.mark.parametrize("key", [OURS, "bb" * 32], ids=["the right key", "another key"])
def test_a_master_leaves_what_is_good_and_repeats_no_failure_of_its_own(key: str) -> None:
    one = unit()
    assert planned(one, a_placement(one, "m1"), held("m1"), key=key) == []
    assert planned(one, a_placement(one, "m1"), held("m1", why="x", tried=key), key=key) == []


def test_a_machine_that_is_away_keeps_what_it_was_given() -> None:
    one = unit()
    away = a_machine("m1", present=False)
    view = a_view(secret(), away, one, a_placement(one, "m1"), held("m1", id="i1"))
    assert plan_sealed(view, OURS) == []


def test_a_removed_secret_is_taken_back_everywhere() -> None:
    one = unit()
    view = a_view(M1, one, a_placement(one, "m1"), held("m1"))
    assert plan_sealed(view, OURS) == [Unseal("m1", "db")]


def test_a_list_says_who_names_a_secret_and_which_machines_hold_which_version() -> None:
    one = unit()
    (told,) = secret_views(a_view(secret(), M1, one, a_placement(one, "m1"), held("m1")))
    assert told.units == ("a.service",) and told.version == 2
    assert [(machine.machine_name, machine.version) for machine in told.machines] == [("m1", 1)]


def test_a_unit_whose_secret_is_not_set_is_not_placed_and_is_told_how_to_set_it() -> None:
    scene = a_scene(a_host("m1"), a_host("m2"))
    decided = place(needs(secrets=("db-password",)), scene)
    assert isinstance(decided, Refused)
    assert decided.message == "secret: db-password is not set"
    assert decided.hint == "unitctl secret set db-password"
    assert {refusal.rule for refusal in decided.refusals} == {"secret"}


def test_a_machine_that_can_not_be_given_secrets_takes_no_unit_that_names_one() -> None:
    host, scene = a_host("m1"), a_scene()
    scene.secrets = frozenset({"db"})
    assert secrets_at_hand(needs(secrets=("db",)), host, scene) == "its agent has no key for secrets"
    assert secrets_at_hand(needs(), host, scene) is None
    host.has_key = True
    assert secrets_at_hand(needs(secrets=("db",)), host, scene) is None
