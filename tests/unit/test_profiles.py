"""The profiles' figures, which masters and agents take from one place."""

from __future__ import annotations

import pytest

from unit_agent.timings import TIMINGS
from unitfleet.profiles import Profile


@pytest.mark.parametrize(
    ("profile", "figures"),
    [(Profile.DEFAULT, (10.0, 2.5, 2.0)), (Profile.FAST, (5.0, 1.25, 1.0)), (Profile.FASTEST, (3.0, 0.75, 0.7))],
)
def test_a_machine_is_lost_a_lease_and_a_grace_after_its_last_renewal(
    profile: Profile, figures: tuple[float, float, float]
) -> None:
    assert (profile.ttl_s, profile.renew_s, profile.grace_s) == figures
    assert (TIMINGS[profile].ttl_s, TIMINGS[profile].renew_s) == figures[:2]
