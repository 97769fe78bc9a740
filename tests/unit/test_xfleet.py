"""fleet's meaning of [X-Fleet]."""

from __future__ import annotations

import pytest

from unitfleet import unitfile, xfleet
from unitfleet.xfleet import XFleet


def read(section: str, name: str = "ssh@2.service") -> XFleet:
    return xfleet.read(name, unitfile.parse(f"[X-Fleet]\n{section}\n"))


def refused(section: str) -> str | None:
    return xfleet.options_error(unitfile.parse(f"[X-Fleet]\n{section}\n"))


def test_one_key_collects_any_of_its_values_and_different_keys_are_all_asked() -> None:
    wants = read('MachineMetadata="region=a" "disk=ssd"\nX-ConditionMachineMetadata=region=b')
    assert dict(wants.metadata) == {"region": ("b", "a"), "disk": ("ssd",)}


@pytest.mark.parametrize("pair", ["a=b c=d", "=b", "a=", "a=b=c", "a"])
def test_fleet_ignores_a_pair_that_it_cannot_read(pair: str) -> None:
    assert read(f"MachineMetadata={pair}").metadata == ()


def test_conflicts_are_split_at_blanks_and_add_up_over_both_spellings() -> None:
    assert read("Conflicts=a b\nX-Conflicts=c").conflicts == ("c", "a", "b")


def test_machine_of_and_replaces_are_not_split_unless_quoted() -> None:
    assert read("MachineOf=a b").machine_of == ("a b",)
    assert read('MachineOf="a" "b"').machine_of == ("a", "b")
    assert read("Replaces=a b").replaces == ("a b",)


def test_the_new_spelling_of_the_pin_counts_and_of_several_values_the_first() -> None:
    assert read("X-ConditionMachineBootID=c\nX-ConditionMachineID=b\nMachineID=a\nMachineID=z").machine_id == "a"
    assert read("X-ConditionMachineBootID=c\nX-ConditionMachineID=b").machine_id == "b"
    assert read("MachineID=").machine_id == ""
    assert read("Global=true").machine_id is None


@pytest.mark.parametrize("word", ["true", "YES", "On", "1", "t", "T"])
def test_global_is_true_in_fleets_five_words_and_any_case(word: str) -> None:
    assert read(f"Global=false\nGlobal={word}").is_global


@pytest.mark.parametrize("word", ["y", "12", "false", "what", ""])
def test_global_is_false_in_any_other_word(word: str) -> None:
    assert not read(f"Global=true\nGlobal={word}").is_global


def test_four_specifiers_are_replaced_and_no_other() -> None:
    wants = read("Conflicts=%n %N %p@*.%i %H %%")
    assert wants.conflicts == ("ssh@2.service", "ssh@2", "ssh@*.2", "%H", "%%")
    assert read("Conflicts=%p@%i.service", "echo.service").conflicts == ("echo@.service",)


def test_unknown_keys_are_named() -> None:
    assert read("global=true\nMachineof=a\nCPU=2\nGlobal=true").unknown == ("global", "Machineof", "CPU")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("MachineID=a\nMachineOf=b", "MachineID cannot be used with Peers"),
        ("MachineID=a\nConflicts=b\nGlobal=true", "MachineID cannot be used with Conflicts"),
        ("MachineID=a\nGlobal=true", "MachineID cannot be used with Global"),
        ("MachineID=a\nReplaces=b", "MachineID cannot be used with Replaces"),
        ("Global=true\nMachineOf=b", "Global cannot be used with Peers"),
        ("Global=true\nReplaces=b", "Global cannot be used with Replaces"),
        ("Conflicts=a\nReplaces=b", "Conflicts cannot be used with Replaces"),
        ("Conflicts=b*\nMachineOf=bar", 'unresolvable requirements: peer "bar" matches conflict "b*"'),
        ("Replaces=b*\nMachineOf=bar", 'unresolvable requirements: peer "bar" matches replace "b*"'),
        ("Global=true\nConflicts=a\nMachineMetadata=a=b", None),
        ("MachineID=a\nGlobal=false", None),
    ],
)
def test_contradictory_keys_are_refused_in_fleets_order(section: str, message: str | None) -> None:
    assert refused(section) == message
