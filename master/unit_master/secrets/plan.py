"""Which secrets are to be sealed for which machines: pure functions of the view.

A machine needs the secrets that the units placed on it name, as long as a placement of such a unit is not `gone`.
One that was shut out is given none, and what it was given is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass

from unit_master.identities import AGENT
from unit_master.view import ClusterView
from unitfleet.accessapi import SecretOnMachine, SecretView
from unitfleet.model import Secret, Wanted

Need = tuple[str, str]
"""A machine and the name of a secret."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal this secret for a machine, which has this public key."""

    machine: str
    key: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class Unseal:
    """Delete what was sealed for a machine: nothing there needs it, or there is no such secret any more."""

    machine: str
    name: str


def plan_sealed(view: ClusterView, key: str) -> list[Seal | Unseal]:
    """Return what is not as it should be. `key` is the public key of this master, "" when it has none."""
    if not view.secrets and not view.sealed:
        return []
    needed = _needed(view)
    planned: list[Seal | Unseal] = [
        Unseal(machine, name)
        for machine, names in sorted(view.sealed.items())
        for name in sorted(names)
        if (machine, name) not in needed or name not in view.secrets
    ]
    for machine, name in sorted(needed):
        secret, present = view.secrets.get(name), view.presence.get(machine)
        if secret is None or present is None or not present.value.public_key:
            continue  # what a machine that is away was given stays
        held = view.sealed.get(machine, {}).get(name)
        as_it_is = held is not None and (held.value.id, held.value.key) == (
            secret.value.id,
            present.value.public_key,
        )
        if held is None or not as_it_is or (held.value.why and held.value.tried != key):
            planned.append(Seal(machine, present.value.public_key, secret.value))
    return planned


def foreign(view: ClusterView, key: str) -> list[str]:
    """Return the secrets that this master can't open, by name."""
    return sorted(name for name, entry in view.secrets.items() if entry.value.key != key)


def secret_views(view: ClusterView) -> list[SecretView]:
    """Return every secret without its value: who names it, which machines hold it."""
    units: dict[str, list[str]] = {}
    for unit, entry in sorted(view.units.items()):
        spec = view.spec(unit, entry.value.spec)
        for name in spec.requirements.secrets if spec else ():
            units.setdefault(name, []).append(unit)
    holders: dict[str, list[SecretOnMachine]] = {}
    for machine, names in sorted(view.sealed.items()):
        for name, sealed in names.items():
            one = SecretOnMachine(
                machine=machine,
                machine_name=view.machine_name(machine),
                version=sealed.value.version,
                why=sealed.value.why,
            )
            holders.setdefault(name, []).append(one)
    return [
        SecretView(
            name=name,
            version=entry.value.version,
            set_by=entry.value.set_by,
            set_at=entry.value.set_at,
            units=tuple(units.get(name, ())),
            machines=tuple(holders.get(name, ())),
        )
        for name, entry in sorted(view.secrets.items())
    ]


def _needed(view: ClusterView) -> set[Need]:
    needed: set[Need] = set()
    for unit, placements in view.placements.items():
        for machine, entry in placements.items():
            if entry.value.wanted is Wanted.GONE or view.is_denied(AGENT, machine):
                continue
            spec = view.spec(unit, entry.value.spec)
            needed.update((machine, name) for name in (spec.requirements.secrets if spec else ()))
    return needed


CONCERNS = frozenset("placements specs secrets sealed machines identities".split())
"""Kinds of keys whose change may change the plan."""
