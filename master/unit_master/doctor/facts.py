"""What was gathered about a cluster at one moment: the whole input of `unit_master.doctor.examine`."""

from __future__ import annotations

from dataclasses import dataclass, field

from unitfleet.findings import Checkup
from unitfleet.store import MemberStatus


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A machine. `skew_s`: how far its clock surely is from the asked master's, ahead is positive.

    `checkup` is None when its agent did not answer, `trouble` says why.
    """

    name: str
    status: str = "ready"
    reason: str = ""
    closed: str = ""
    drivers: tuple[str, ...] = ()
    version: str = ""
    has_policy: bool = True
    missing: dict[str, str] = field(default_factory=dict)  # image → why it is not there
    checkup: Checkup | None = None
    skew_s: float = 0.0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class MasterFacts:
    """A master; `trouble` is why it did not answer, `audit_trouble` why its audit log takes no line."""

    name: str
    version: str = ""
    skew_s: float = 0.0
    audit_trouble: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """A unit that is not as wanted, or that no driver there is can run. `for_s`: since when, in seconds."""

    name: str
    phase: str
    why: str = ""
    for_s: float = 0.0
    ok: bool = True
    drivers: tuple[str, ...] = ()
    wanted: bool = True  # its target is to be on a machine


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `stale_s`: for how long the store has been silent to the asked master."""

    leader: str = ""
    stale_s: float = 0.0
    members: tuple[MemberStatus, ...] = ()
    machines: tuple[MachineFacts, ...] = ()
    masters: tuple[MasterFacts, ...] = ()
    units: tuple[UnitFacts, ...] = ()
    brake: str = "off"
    brake_why: str = ""
    unreadable: tuple[str, ...] = ()
    encrypted: bool = False  # whether masters and agents show certificates
    protected: bool = False  # whether etcd is to let each identity write its own keys alone
    etcd_asks: bool | None = None  # whether it does; None where it is shown no certificates, or does not answer
