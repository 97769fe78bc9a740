"""What the profiles promise each other."""

from __future__ import annotations

import pytest

from unitfleet.etcd.endpoint import PROBE_DEADLINE_S
from unitfleet.profiles import Profile


@pytest.mark.parametrize("profile", Profile)
def test_renewals_on_time_spare_the_probe_and_a_frozen_member_is_left_before_the_lease_ends(
    profile: Profile,
) -> None:
    assert profile.renew_s < profile.probe_s
    assert profile.probe_s + PROBE_DEADLINE_S < profile.ttl_s
