"""The kinds of story: what befalls a fleet in each, how often, and which units it surely has.

`any` is of everything there is, as the seed draws it. Each of the others dwells on what `any` seldom comes to: an
old leader that goes on, a store that was set back, a removed machine that returns, strict units on a host that is
cut off. So a fault in just that is met within few seeds (`test_seeded_bugs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulation import aimed, misfortunes
from simulation.fleet import Fleet
from simulation.misfortunes import Misfortune
from simulation.units import A, B, E, Group, S, T, U

ANY = "any"

Weights = dict[Misfortune, float]


@dataclass(frozen=True, slots=True)
class Mix:
    """A kind of story. `theme` returns what may happen in one, and how often; `always` are units that it has.

    For how many seconds that goes on, and how many lie between two of it, is drawn from the last two.
    """

    theme: Callable[[Fleet], Weights]
    always: tuple[Group, ...] = ()
    lasts_s: tuple[float, ...] = (6.0, 10.0, 15.0, 25.0)
    pace_s: tuple[float, ...] = (0.4, 0.8, 1.5)


def _of(weights: Weights) -> Callable[[Fleet], Weights]:
    return lambda fleet: weights


_STRICT: Weights = {
    aimed.strict_host_is_cut_off: 4,
    aimed.answers_come_late: 3,
    aimed.strict_host_is_drained: 1,
    misfortunes.wishes: 1,
    misfortunes.process_is_paused: 0.5,
    misfortunes.agent_dies: 0.5,
}

_LEADERS: Weights = {
    misfortunes.wishes: 6,
    misfortunes.restarts: 2,
    aimed.leader_loses_its_lease: 3,
    misfortunes.master_dies: 1,
    misfortunes.agent_dies: 1,
}

_LATE: Weights = {
    aimed.masters_hear_late: 1,
    aimed.machine_blinks: 3,
    misfortunes.master_dies: 0.3,
    misfortunes.wishes: 0.5,
}

_RESTORED: Weights = {
    misfortunes.store_is_restored: 2,
    misfortunes.restarts: 5,
    misfortunes.wishes: 3,
    misfortunes.orders: 1,
    misfortunes.agent_dies: 1,
    misfortunes.link_is_cut: 1,
}

_REMOVED: Weights = {
    aimed.machine_is_removed: 2,
    aimed.unit_is_made_anew: 4,
    misfortunes.agent_dies: 1,
    misfortunes.wishes: 1,
}

_LONG = (15.0, 25.0, 40.0)

MIXES: Mapping[str, Mix] = {
    ANY: Mix(misfortunes.theme),
    "strict": Mix(_of(_STRICT), always=((S, T), (S, U)), lasts_s=(25.0, 40.0), pace_s=(2.0, 5.0)),
    "leaders": Mix(_of(_LEADERS)),
    "late": Mix(_of(_LATE), lasts_s=_LONG, pace_s=(1.0, 2.0)),
    "restored": Mix(_of(_RESTORED)),
    "removed": Mix(_of(_REMOVED), always=((A, B), (E,))),
}
