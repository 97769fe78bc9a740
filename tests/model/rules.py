"""What a run of the model is about: its scenario, the sentences that hold in it, and a seeded bug."""

from __future__ import annotations

from dataclasses import dataclass

SENTENCES = frozenset(
    (
        "incarnation",
        "gone_final",
        "orphan",
        "orphan_known",
        "fence_placement",
        "fence_covers",
        "loss_guard",
        "wait_for_gone",
        "remove_lost",
        "serial",
        "reaffirm",
        "nowhere_stays",
        "nowhere_others",
        "nowhere_strict",
        "strict_anew",
    )
)
"""Each is a sentence of the protocol, or a part of one (docs/model.md): left out, it shows what it is for."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A scenario: who is there, what the user and misfortune may do, and how often.

    `strict`: for each unit the texts ("0" at first, "1" after a change) that say `Singleton=strict`.
    `budget`: commands, faults and delays. `joining`: machines that are off at first and were never seen.
    """

    machines: int = 2
    units: int = 1
    strict: tuple[str, ...] = ()
    conflicts: bool = False
    machine_of: bool = False  # unit 1 follows unit 0
    priority: bool = False  # a machine holds one unit, and unit 0 evicts unit 1 when it fits nowhere
    is_global: bool = False
    joining: int = 0
    commands: frozenset[str] = frozenset()
    faults: frozenset[str] = frozenset()
    budget: tuple[int, int, int] = (2, 2, 1)
    sentences: frozenset[str] = SENTENCES
    bug: str = ""

    def is_strict(self, unit: int, text: int) -> bool:
        """Say whether that text of that unit is a strict one."""
        return unit < len(self.strict) and str(text) in self.strict[unit]

    def says(self, sentence: str) -> bool:
        """Say whether the sentence is part of the protocol in this run."""
        return sentence in self.sentences


def rules(
    *,
    machines: int = 2,
    units: int = 1,
    strict: tuple[str, ...] = (),
    conflicts: bool = False,
    machine_of: bool = False,
    priority: bool = False,
    is_global: bool = False,
    joining: int = 0,
    commands: str = "",
    faults: str = "",
    budget: tuple[int, int, int] = (2, 2, 1),
) -> Rules:
    """Make a scenario; commands and faults are words in a string."""
    return Rules(
        machines,
        units,
        strict,
        conflicts,
        machine_of,
        priority,
        is_global,
        joining,
        frozenset(commands.split()),
        frozenset(faults.split()),
        budget,
    )
