"""Which keys of etcd a machine may read and write, and who is known to etcd at all."""

from __future__ import annotations

import pytest

from unit_master.etcd_roles.roles import (
    AGENTS,
    ROOT,
    Wanted,
    machine_of,
    own,
    role_of,
    shared,
    strangers,
    superfluous,
    wanted,
)
from unit_master.view import ClusterView, Entry
from unitfleet import keys
from unitfleet.etcd.messages import range_end
from unitfleet.model import IdentityRecord, MasterRecord
from unitfleet.permissions import Access, Permission, under

M1, M2 = "1" * 32, "2" * 32
READS = (Access.READ, Access.BOTH)
WRITES = (Access.WRITE, Access.BOTH)


def may(permissions: frozenset[Permission], access: tuple[Access, ...], key: str, end: bytes = b"") -> bool:
    """Tell whether one of the permissions covers the key, or all from it up to `end`, as etcd looks at it."""
    asked = key.encode()
    for each in permissions:
        if each.access not in access:
            continue
        if not each.end:
            covered = asked == each.key and not end
        else:
            covered = each.key <= asked < each.end and (not end or end <= each.end)
        if covered:
            return True
    return False


ITS_OWN = [
    keys.presence(M1),
    keys.state(M1, "a.service"),
    keys.resources(M1),
    keys.images(M1),
    keys.fence(M1),
    keys.machine_event(M1, "w", 1),
]

NOT_ITS_OWN = [
    keys.presence(M2),
    keys.state(M2, "a.service"),
    keys.resources(M2),
    keys.images(M2),
    keys.fence(M2),
    keys.machine_event(M2, "w", 1),
    keys.event(493000, "master-1", 1),
    keys.placement(M1, "a.service"),
    keys.placement(M2, "a.service"),
    keys.machine_spec(M1),
    keys.warm_set(M1),
    keys.sealed(M1, "s"),
    keys.roster(M1),
    keys.unit("a.service"),
    keys.spec("0" * 64),
    keys.pin("0" * 64),
    keys.pending("a.service"),
    keys.stay("a.service", 1),
    keys.warm("0" * 64),
    keys.master("one"),
    keys.token("t"),
    keys.token_name("t"),
    keys.join_token("t"),
    keys.identity("agent", M1),
    keys.secret("s"),
    keys.EPOCH,
    keys.CLUSTER,
    keys.LEADER,
    keys.BRAKE,
    keys.PROTECTION,
    keys.presence(M1) + "0",
    keys.states_of(M1)[:-1],
]


@pytest.mark.parametrize("key", ITS_OWN)
def test_an_agent_writes_what_it_says_of_itself(key: str) -> None:
    assert may(own(M1) | shared(), WRITES, key)


@pytest.mark.parametrize("key", NOT_ITS_OWN)
def test_an_agent_writes_nothing_else(key: str) -> None:
    assert not may(own(M1) | shared(), WRITES, key)


def test_an_agent_writes_nowhere_under_the_prefix_of_all() -> None:
    """No prefix that is wider than a machine's own is written, whatever key one thinks of."""
    for each in own(M1) | shared():
        if each.access in WRITES:
            assert M1.encode() in each.key
            assert each in (Permission(each.access, each.key), under(each.access, each.key.decode()))


@pytest.mark.parametrize(
    ("prefix", "readable"),
    [
        (keys.placements_of(M1), True),
        (keys.states_of(M1), True),
        (keys.presence(M1), True),
        (keys.machine_spec(M1), True),
        (keys.warm_set(M1), True),
        (keys.sealed_of(M1), True),
        (keys.MASTERS, True),
        (keys.placements_of(M2), False),
        (keys.states_of(M2), False),
        (keys.sealed_of(M2), False),
        (keys.PREFIX, False),
        (keys.PREFIX + "secrets/", False),
        (keys.PREFIX + "tokens/", False),
        (keys.PREFIX + "identities/", False),
        (keys.PREFIX + "events/", False),
    ],
)
def test_an_agent_lists_and_watches_what_concerns_it(prefix: str, readable: bool) -> None:
    assert may(own(M1) | shared(), READS, prefix, range_end(prefix)) is readable


@pytest.mark.parametrize("key", [keys.CLUSTER, keys.LEADER, keys.spec("0" * 64), keys.presence(M1)])
def test_an_agent_reads_which_cluster_this_is_who_leads_and_texts(key: str) -> None:
    assert may(own(M1) | shared(), READS, key)


def test_a_prefix_of_permissions_is_the_range_that_a_watch_asks_for() -> None:
    for prefix in (keys.placements_of(M1), keys.presence(M1), "/"):
        assert under(Access.READ, prefix).end == range_end(prefix)


def an_identity(role: str, name: str, *, denied: bool = False) -> Entry[IdentityRecord]:
    return Entry(IdentityRecord(name=name, role=role, key="k", expires_at=1.0, denied=denied), 1, 1)


def a_master(name: str, user: str) -> Entry[MasterRecord]:
    return Entry(MasterRecord(name=name, nonce="n", etcd_user=user), 1, 1)


def test_who_is_shut_out_is_not_known_and_a_machine_is_no_master_whoever_wrote_that() -> None:
    view = ClusterView(
        identities={
            "agent": {M1: an_identity("agent", M1), M2: an_identity("agent", M2, denied=True)},
            "master": {"two": an_identity("master", "two"), M1: an_identity("master", M1)},
        },
        masters={"one": a_master("one", "host1"), "fake": a_master("fake", M2), "old": a_master("old", "")},
    )
    assert wanted(view) == Wanted(machines=frozenset({M1}), masters=frozenset({"host1", "two"}))


def test_roles_of_machines_that_are_gone_are_superfluous_and_no_others() -> None:
    there = frozenset({ROOT, AGENTS, role_of(M1), role_of(M2), "unitfleet-agent-somebody", "backup"})
    assert superfluous(there, frozenset({M1})) == {M2}
    assert machine_of(role_of(M1)) == M1
    assert machine_of(ROOT) is None


def test_strangers_who_may_do_everything_are_told_of() -> None:
    users = {
        "root": frozenset({ROOT}),
        "one": frozenset({ROOT}),
        "evil": frozenset({ROOT, "x"}),
        "backup": frozenset({"x"}),
    }
    assert strangers(users, Wanted(frozenset(), frozenset({"one"}))) == {"evil"}
