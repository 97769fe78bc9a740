"""The scenarios: what is searched, what each sentence is for, and which seeded bugs must be found."""

from __future__ import annotations

from dataclasses import replace

from model.rules import Rules, rules

LIFE = "stop destroy create over"
STRICT = ("01",)

SCENARIOS = {
    "ordinary": rules(commands=LIFE, faults="crash partition revoke power leader exit", budget=(2, 2, 0)),
    "ordinary-delays": rules(commands=LIFE, faults="partition revoke leader hold late", budget=(2, 1, 1)),
    "ordinary-rm": rules(commands="rm destroy create over", faults="partition power hold late", budget=(3, 1, 1)),
    "ordinary-drain3": rules(
        machines=3, commands="drain stop", faults="partition power revoke leader", budget=(2, 1, 0)
    ),
    "restart": rules(commands="restart drain", faults="crash partition power leader exit", budget=(2, 2, 0)),
    "restart-delays": rules(
        commands="restart drain", faults="crash partition leader exit hold late", budget=(2, 1, 1)
    ),
    "strict": rules(
        strict=STRICT, commands=LIFE, faults="crash partition revoke power leader exit", budget=(1, 2, 0)
    ),
    "strict-delays": rules(
        strict=STRICT,
        commands="drain stop",
        faults="crash partition revoke leader hold late",
        budget=(1, 2, 1),
    ),
    "strict-rm": rules(
        strict=STRICT, commands="rm destroy create", faults="partition revoke power hold", budget=(2, 2, 1)
    ),
    "conflicts": rules(
        units=2,
        conflicts=True,
        commands="drain stop destroy",
        faults="partition power revoke hold",
        budget=(1, 1, 1),
    ),
    "priority": rules(
        units=2, priority=True, commands="drain stop destroy", faults="partition power revoke", budget=(1, 1, 0)
    ),
    "priority-delays": rules(
        units=2, priority=True, commands="drain stop", faults="partition hold late", budget=(1, 1, 1)
    ),
    "strict-priority": rules(
        units=2,
        strict=("01", "01"),
        priority=True,
        commands="drain stop",
        faults="partition revoke",
        budget=(1, 1, 0),
    ),
    "machineof": rules(units=2, machine_of=True, commands="drain", faults="partition", budget=(1, 1, 0)),
    "strict-restart": rules(
        strict=STRICT, commands="restart drain", faults="crash partition revoke leader", budget=(2, 1, 0)
    ),
    "strict-restart2": rules(
        strict=STRICT,
        commands="restart drain",
        faults="crash partition revoke power leader exit",
        budget=(2, 2, 0),
    ),
    "strict-restart-delays": rules(
        strict=STRICT, commands="restart drain stop", faults="partition hold late", budget=(2, 1, 1)
    ),
    "strict-conflicts": rules(
        units=2,
        strict=("01", "01"),
        conflicts=True,
        commands="drain stop destroy",
        faults="partition revoke",
        budget=(1, 1, 0),
    ),
    "strict-beside-ordinary": rules(
        units=2, strict=STRICT, conflicts=True, commands="drain stop", faults="partition power", budget=(1, 1, 0)
    ),
    "strict-machineof": rules(
        units=2,
        strict=("01", "01"),
        machine_of=True,
        commands="drain destroy",
        faults="partition",
        budget=(1, 1, 0),
    ),
    "machineof-destroy": rules(
        units=2, machine_of=True, commands="drain destroy", faults="partition", budget=(2, 1, 0)
    ),
    "global": rules(
        is_global=True,
        joining=1,
        commands="label destroy create over restart",
        faults="partition power crash",
        budget=(2, 1, 0),
    ),
    "global-delays": rules(
        is_global=True, commands="label drain stop rm", faults="partition hold late leader", budget=(2, 1, 1)
    ),
    "text": rules(commands="text drain restart", faults="crash partition power leader", budget=(2, 1, 0)),
    "text-delays": rules(commands="text drain stop", faults="partition hold late exit", budget=(2, 1, 1)),
    "strict-text": rules(
        strict=STRICT,
        commands="text restart limit drain",
        faults="crash partition revoke leader",
        budget=(2, 1, 0),
    ),
    "becomes-strict": rules(
        strict=("1",), commands="text drain", faults="crash partition power revoke leader", budget=(2, 1, 0)
    ),
    "becomes-strict2": rules(
        strict=("1",), commands="text drain", faults="crash partition power revoke leader", budget=(2, 2, 0)
    ),
    "becomes-strict-delays": rules(
        strict=("1",), commands="text drain", faults="partition hold late", budget=(2, 1, 1)
    ),
    "becomes-ordinary": rules(
        strict=("0",), commands="text drain", faults="partition power revoke", budget=(2, 1, 0)
    ),
    "unload": rules(commands="unload destroy", faults="partition power hold late", budget=(3, 1, 1)),
    "limit": rules(commands="limit restart drain", faults="partition crash", budget=(2, 1, 0)),
}
HOLES = {  # sentences left out (and where) → the smallest scenario that breaks without them
    "incarnation": rules(commands="destroy create over", budget=(2, 0, 0)),
    "incarnation: a removed machine": rules(commands="rm destroy create", faults="partition", budget=(3, 1, 0)),
    "incarnation gone_final": rules(commands="destroy create", faults="partition", budget=(2, 2, 0)),
    "orphan": rules(commands="rm", faults="partition", budget=(1, 1, 0)),
    "orphan: a report retried": rules(commands="destroy", faults="late", budget=(1, 0, 1)),
    "orphan_known": rules(commands="rm destroy", faults="partition late", budget=(2, 1, 1)),
    "fence_placement": rules(strict=STRICT, commands="destroy create over", faults="revoke", budget=(2, 2, 0)),
    "loss_guard": rules(strict=STRICT, faults="revoke hold", budget=(0, 2, 1)),
    "wait_for_gone": rules(strict=STRICT, commands="drain", faults="revoke", budget=(1, 1, 0)),
    "remove_lost": rules(strict=STRICT, commands="rm", faults="revoke", budget=(1, 1, 0)),
    "serial": rules(units=2, conflicts=True, faults="hold", budget=(0, 0, 1)),
    "reaffirm nowhere_stays": rules(faults="partition", budget=(0, 2, 0)),
    "nowhere_stays": rules(commands="restart drain", faults="partition", budget=(2, 1, 0)),
    "nowhere_others": rules(units=2, machine_of=True, commands="drain destroy", budget=(2, 0, 0)),
    "nowhere_strict": rules(strict=STRICT, commands="restart drain", faults="partition", budget=(2, 1, 0)),
    "strict_anew": rules(strict=("1",), commands="text drain", budget=(2, 0, 0)),
    "strict_anew: cut off": rules(strict=("1",), commands="text", faults="partition", budget=(1, 1, 0)),
}
"""What stands before a colon are the sentences that are left out."""

NEEDLESS = {  # within these bounds another sentence does what it says, too
    "gone_final": rules(commands="destroy create", faults="partition", budget=(2, 1, 0)),
    "reaffirm": rules(faults="partition revoke power", budget=(0, 2, 0)),
    "fence_covers": rules(strict=STRICT, commands="text restart", faults="revoke", budget=(1, 1, 0)),
}

BUGS = {
    "delete_not_gone": rules(commands="destroy", budget=(1, 0, 0)),
    "stop_on_absence": rules(commands="rm", faults="partition", budget=(1, 1, 0)),
    "epoch_per_unit": rules(machines=1, commands="rm destroy create over", faults="power late", budget=(3, 1, 1)),
    "no_term_guard": rules(faults="leader hold", budget=(0, 1, 1)),
    "break_first": rules(commands="drain", budget=(1, 0, 0)),
    "restart_in_memory": rules(commands="restart", faults="crash", budget=(1, 1, 0)),
    "keepalive_fence": rules(strict=STRICT, faults="revoke", budget=(0, 1, 0)),
    "no_wait": rules(strict=STRICT, faults="revoke", budget=(0, 1, 0)),
}


def without(names: str, rules: Rules) -> Rules:
    """Return the rules with the sentences left out that stand before a colon in `names`."""
    return replace(rules, sentences=rules.sentences - set(names.partition(":")[0].split()))


def deeper(rules: Rules) -> Rules:
    """Return the scenario for random walks: a machine more, and three times as much may happen."""
    commands, faults, delays = rules.budget
    return replace(rules, machines=rules.machines + 1, budget=(3 * commands, 3 * faults, 3 * delays))
