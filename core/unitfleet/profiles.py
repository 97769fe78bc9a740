"""How soon a silent machine is lost: the profiles that masters and agents of one cluster share."""

from __future__ import annotations

from enum import StrEnum

RENEWALS = 4
"""Times that a machine renews its lease within the lease's time: three may fail before it ends."""


class Profile(StrEnum):
    """`--profile`. A machine is lost `ttl_s` + `grace_s` after its last renewal."""

    DEFAULT = "default"
    FAST = "fast"
    FASTEST = "fastest"

    @property
    def ttl_s(self) -> float:
        """How long a machine's lease lasts after a renewal."""
        return {Profile.DEFAULT: 10.0, Profile.FAST: 5.0, Profile.FASTEST: 3.0}[self]

    @property
    def renew_s(self) -> float:
        """How often a machine renews its lease."""
        return self.ttl_s / RENEWALS

    @property
    def probe_s(self) -> float:
        """How long etcd may say nothing to a machine before it is asked for a sign of life.

        Renewals that are answered on time are one: a thousand machines would ask a thousand times a second.
        """
        return 1.2 * self.renew_s

    @property
    def grace_s(self) -> float:
        """How long after its lease ended a machine may come back before it is lost."""
        return {Profile.DEFAULT: 2.0, Profile.FAST: 1.0, Profile.FASTEST: 0.7}[self]
