"""Who may join, and who is shut out. Pure: records in, records or reasons out.

A token that is unknown, spent, over or guessed gets one and the same answer; the true reason is for the log.
"""

from __future__ import annotations

import hmac
import re
from collections import deque
from dataclasses import dataclass, field

import msgspec

from unit_master.view import ClusterView
from unitfleet.errors import Refused
from unitfleet.jointoken import hashed
from unitfleet.model import IdentityRecord, JoinRecord

AGENT = "agent"
MACHINE_ID = re.compile(r"[0-9a-f]{32}")
"""An agent's certificate is good under its id as a server: an id must not be a name that a master could have."""

WINDOW_S = 60.0
MOST_FAILURES = 10
"""Failed attempts of one address within the window. Of all together there may be a hundred times as many: a secret
is too long to be guessed, and nobody is to keep others out by failing."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The token is good. `record` is what it is now, None for who asks again after a lost answer."""

    record: JoinRecord | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The token is not good: the reason stays here."""

    why: str


def judge(
    record: JoinRecord | None, secret: str, role: str, name: str, key: str, now: float
) -> Admitted | Rejected:
    """Say whether a token lets this one in, with a key of this digest."""
    if record is None:
        return Rejected("no such token: spent, over, removed, or never made here")
    try:
        digest = hashed(secret)
    except ValueError:
        digest = ""
    if not hmac.compare_digest(digest, record.secret):
        return Rejected("the secret is wrong")
    if now > record.expires_at:
        return Rejected("the token is over")
    if role != record.role:
        return Rejected(f"the token is for {record.role}s, not for {role[:20]!a}")
    if record.joined.get(name) == key:
        return Admitted(None)
    if record.uses_left < 1:
        return Rejected(f"the token is spent, by {', '.join(record.joined) or 'nobody'}")
    used = msgspec.structs.replace(record, uses_left=record.uses_left - 1, joined={**record.joined, name: key})
    return Admitted(used)


def in_the_way(known: IdentityRecord | None, key: str, *, present: bool, now: float) -> str:
    """Return why nobody may join under this name now although the token is good, "" when nothing is in the way."""
    if known is None or (known.key == key and not known.denied):
        return ""
    if known.denied:
        return "it was shut out"
    if present and now < known.expires_at:
        return "an agent of this id is there, with another key"
    return ""


def find_identity(view: ClusterView, wanted: str) -> str | None:
    """Return the machine that joined under this id or unique beginning of it, be its agent ever seen or not."""
    found = [name for name in view.identities.get(AGENT, {}) if name.startswith(wanted)] if wanted else []
    return found[0] if len(found) == 1 else None


def shut_out(view: ClusterView, machine: str, *, denied: bool) -> IdentityRecord:
    """Return the machine's identity, shut out or let in again; raises `Refused` for one without."""
    known = view.identities.get(AGENT, {}).get(machine)
    if known is None:
        raise Refused(
            f"cannot {'shut out' if denied else 'let in'} {view.machine_name(machine)}: it has no certificate",
            hint="a machine gets one when it joins by a token: unitctl machines join-token",
        )
    return msgspec.structs.replace(known.value, denied=denied)


@dataclass(slots=True)
class Attempts:
    """Failed attempts to join in the last minute; whoever has too many waits."""

    _of: dict[str, deque[float]] = field(default_factory=dict)

    def too_many(self, address: str, now: float) -> bool:
        """Tell whether this address, or all together, failed too often."""
        for times in self._of.values():
            while times and now - times[0] > WINDOW_S:
                times.popleft()
        self._of = {known: times for known, times in self._of.items() if times}
        everywhere = sum(len(times) for times in self._of.values())
        return len(self._of.get(address, ())) >= MOST_FAILURES or everywhere >= 100 * MOST_FAILURES

    def failed(self, address: str, now: float) -> None:
        """Note one more."""
        self._of.setdefault(address, deque()).append(now)
