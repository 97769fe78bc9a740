"""Who asks, and whether they may: values and decisions, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitfleet.model import Role

UNIX = "unix"
"""The source of whoever came through the Unix socket."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `role` None: the holder of a key that opens this one route and has no role.

    `source` is the peer's address, or `UNIX`; `token` is the id of the store's token that was shown, "" for none.
    `machine` is the id of the machine that asks, which may ask for itself alone; "" where none does.
    """

    name: str
    role: Role | None
    source: str
    token: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """Nobody who is known, and what the caller is told of why; `code` is a word of docs/api.md.

    `final`: nothing else that is sent on this connection will do.
    """

    why: str
    hint: str = "Authorization: Bearer TOKEN"
    code: str = "denied"
    final: bool = False


NO_TOKEN = Denied("it carries no token")
UNKNOWN_TOKEN = Denied("its token is not one of this cluster")
"""One and the same for a token that never was, one that was removed, and one that is no token at all."""


def too_low(caller: Caller, needed: Role, action: str) -> str | None:
    """Return why `caller` may not do what needs a role, or None."""
    if caller.role is None or caller.role.covers(needed):
        return None
    return f'cannot {action}: your token "{caller.name}" is {_a(caller.role)}, this needs {needed}'


def of_another(caller: Caller, machine: str, action: str) -> str | None:
    """Return why a machine may not do what is about `machine`, or None when that is its own id."""
    if not caller.machine or machine == caller.machine:
        return None
    return f"cannot {action}: {caller.name} may do this to its own machine alone"


def some(names: Sequence[str], count: int, most: int = 2) -> str:
    """Name the first of many: a, b and 7 more."""
    shown = ", ".join(names[:most])
    return f"{shown} and {count - most} more" if count > most else shown


def _a(role: Role) -> str:
    return f"a {role}" if role is Role.VIEWER else f"an {role}"
