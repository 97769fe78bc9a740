"""Who may read and write which keys of etcd. Pure: the whole of what an agent may do stands here.

`docs/security.md` has it in words, `tests/functional/test_etcd_roles.py` holds an agent at work against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unit_master.identities import AGENT, MACHINE_ID
from unit_master.view import ClusterView
from unitfleet import keys
from unitfleet.joinapi import Role
from unitfleet.permissions import Access, Permission, exactly, under

ROOT = "root"
"""etcd's own: the user without whom it does not ask who somebody is, and the role that may do everything."""

AGENTS = "unitfleet-agents"
_AGENT = "unitfleet-agent-"


def role_of(machine: str) -> str:
    """Return the name of a machine's own role."""
    return _AGENT + machine


def machine_of(role: str) -> str | None:
    """Return whose own role this is, None for one that we did not make."""
    machine = role.removeprefix(_AGENT)
    return machine if role.startswith(_AGENT) and MACHINE_ID.fullmatch(machine) else None


def shared() -> frozenset[Permission]:
    """Return what every agent may do: read where masters are, which cluster this is, and the texts of units."""
    return frozenset(
        {
            exactly(Access.READ, keys.CLUSTER),
            exactly(Access.READ, keys.LEADER),
            under(Access.READ, keys.MASTERS),
            under(Access.READ, keys.spec("")),
        }
    )


def own(machine: str) -> frozenset[Permission]:
    """Return what the agent of one machine may do: write what it says of itself, read its orders.

    What is read by a watch is asked for as a prefix, one key too.
    """
    return frozenset(
        {
            exactly(Access.WRITE, keys.presence(machine)),
            under(Access.READ, keys.presence(machine)),
            under(Access.BOTH, keys.states_of(machine)),
            under(Access.WRITE, keys.machine_events_of(machine)),
            exactly(Access.WRITE, keys.resources(machine)),
            exactly(Access.WRITE, keys.images(machine)),
            exactly(Access.WRITE, keys.fence(machine)),
            under(Access.READ, keys.placements_of(machine)),
            under(Access.READ, keys.machine_spec(machine)),
            under(Access.READ, keys.warm_set(machine)),
            under(Access.READ, keys.sealed_of(machine)),
        }
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which machines are to have a user and a role, and which masters everything: their users by name."""

    machines: frozenset[str]
    masters: frozenset[str]


def wanted(view: ClusterView) -> Wanted:
    """Return who is to be known to etcd: every machine with a certificate that is not shut out, every master.

    A machine id is never a master's name: whoever wrote that while etcd asked nobody gets nothing for it.
    """
    agents = view.identities.get(AGENT, {})
    named = {entry.value.etcd_user for entry in view.masters.values()} | view.identities.get(
        Role.MASTER, {}
    ).keys()
    return Wanted(
        machines=frozenset(name for name, entry in agents.items() if not entry.value.denied),
        masters=frozenset(name for name in named if name and not MACHINE_ID.fullmatch(name)),
    )


def superfluous(roles: frozenset[str], machines: frozenset[str]) -> frozenset[str]:
    """Return the machines that have a role and are to have none any more."""
    having = {machine for role in roles if (machine := machine_of(role)) is not None}
    return frozenset(having - machines)


def strangers(users: Mapping[str, frozenset[str]], known: Wanted) -> frozenset[str]:
    """Return the users with everything that are neither masters nor root: nobody here made them."""
    return frozenset(name for name, roles in users.items() if ROOT in roles and name not in known.masters | {ROOT})
