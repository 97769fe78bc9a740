"""Which files a unit's secrets become: names, and whose they are. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unitfleet.spec import SecretSpec, UnitSpec

Account = tuple[int, int]
"""A user's and a group's number."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """One file in the directory of a unit's secrets."""

    name: str
    secret: SecretSpec
    uid: int
    gid: int


def file_names(spec: UnitSpec) -> tuple[str, ...]:
    """Return the files' names. A container sees its own at their targets alone, one secret may be several."""
    if spec.container is None:
        return tuple(secret.target for secret in spec.secrets)
    return tuple(f"{number}.{secret.name}" for number, secret in enumerate(spec.secrets))


def account(spec: UnitSpec, own: Account, of_host: Callable[[str, str], Account]) -> Account:
    """Return who the unit runs as: in a container by numbers, root unless said; else an account of the host.

    `own` is the agent's; `of_host` looks `User=` and `Group=` up.
    """
    if spec.container is None:
        service = spec.service
        return of_host(service.user, service.group) if service.user or service.group else own
    user, _, group = spec.container.user.partition(":")
    return int(user) if user.isdigit() else 0, int(group) if group.isdigit() else 0


def files(spec: UnitSpec, whose: Account) -> tuple[SecretFile, ...]:
    """Return the files of a unit that runs as `whose`."""
    return tuple(
        SecretFile(
            name,
            secret,
            whose[0] if secret.uid is None else secret.uid,
            whose[1] if secret.gid is None else secret.gid,
        )
        for name, secret in zip(file_names(spec), spec.secrets, strict=True)
    )
