"""What a certificate opens, when it is renewed, and what is in the way of joining: pure."""

from __future__ import annotations

import asyncio
import random
import ssl
from pathlib import Path

import pytest

from unit_master.api.certified import Shown, shown
from unit_master.credentials import Credentials
from unit_master.identities import in_the_way
from unit_master.joins import Signing
from unit_master.view import ClusterView, Entry
from unitfleet import certificates, identity, wholefile
from unitfleet.certificates import Certificate, Who
from unitfleet.errors import InvalidConfig, StoreUnavailable
from unitfleet.etcd import credentials
from unitfleet.joinapi import Role
from unitfleet.model import IdentityRecord
from unitfleet.renewal import FIRST_PAUSE_S, LAST_PAUSE_S, Renewal, due_in, pause
from unitfleet.tls import Contexts, Files, Peer, client_context, server_context

NOW = 1_800_000_000.0
DAY = 86400.0
M1 = "1" * 32


def view(*denied: str) -> ClusterView:
    made = ClusterView()
    for name in denied:
        record = IdentityRecord(name=name, role="agent", key="k", expires_at=NOW, denied=True)
        made.identities.setdefault("agent", {})[name] = Entry(record, 1, 1)
    return made


@pytest.mark.parametrize(
    ("role", "path", "opens"),
    [
        ("admin", "/v1/units", True),
        ("agent", "/v1/ingest/logs", True),
        ("agent", "/v1/renew", True),
        ("agent", "/v1/machines/{machine}/drain", True),
        ("agent", "/v1/machines/{machine}/{order}", False),
        ("master", "/v1/machines/{machine}/drain", False),
        ("agent", "/v1/units", False),
        ("agent", "/v1/archive/search", False),
        ("agent", "/v1/join-tokens", False),
        ("agent", "", False),
        ("master", "/v1/archive/search", True),
        ("master", "/v1/units", False),
        ("", "/v1/units", False),
        ("Admin", "/v1/units", False),
    ],
)
def test_a_certificate_opens_what_its_role_needs(role: str, path: str, opens: bool) -> None:
    found = shown(Peer("x", role, NOW + 1), path, view(), NOW, synced=True)
    assert (found.opens, found.final) == (opens, False)


def test_without_a_certificate_the_token_decides() -> None:
    assert shown(None, "/v1/units", view(), NOW, synced=True) == Shown()


@pytest.mark.parametrize("path", ["/v1/ingest/logs", "/v1/renew", "/healthz"])
def test_who_is_shut_out_or_over_is_helped_by_no_token(path: str) -> None:
    assert shown(Peer(M1, "agent", NOW + 1), path, view(M1), NOW, synced=True).final
    assert shown(Peer(M1, "agent", NOW - 1), path, view(), NOW, synced=True).final
    assert not shown(Peer("2" * 32, "agent", NOW + 1), path, view(M1), NOW, synced=True).final


def test_a_master_that_has_not_read_the_store_takes_no_machine_yet() -> None:
    found = shown(Peer(M1, "agent", NOW + 1), "/v1/ingest/logs", view(), NOW, synced=False)
    assert found.final and found.code == "unavailable"
    assert shown(Peer("ada", "admin", NOW + 1), "/v1/units", view(), NOW, synced=False).opens


def a_certificate(days: float = 30) -> Certificate:
    return Certificate(M1, "agent", (), NOW, NOW + days * DAY, "k", False)


def test_a_certificate_is_renewed_at_half_its_time() -> None:
    assert due_in(a_certificate(), NOW) == pytest.approx(15 * DAY)
    assert due_in(a_certificate(), NOW + 15 * DAY) == 0
    assert due_in(a_certificate(), NOW + 40 * DAY) == 0


def test_failures_are_tried_again_later_and_later_and_sooner_when_it_is_nearly_over() -> None:
    waits = [pause(attempts, a_certificate(), NOW + 16 * DAY) for attempts in range(20)]
    assert waits[0] == FIRST_PAUSE_S and waits == sorted(waits) and waits[-1] == LAST_PAUSE_S
    assert pause(20, a_certificate(), NOW + 30 * DAY - 600) == 60
    assert pause(20, a_certificate(), NOW + 31 * DAY) == FIRST_PAUSE_S


@pytest.mark.parametrize(
    ("record", "key", "present", "why"),
    [
        (None, "a", True, ""),
        (IdentityRecord(name=M1, role="agent", key="a", expires_at=NOW + 1), "a", True, ""),
        (IdentityRecord(name=M1, role="agent", key="a", expires_at=NOW + 1), "b", True, "an agent of this id"),
        (IdentityRecord(name=M1, role="agent", key="a", expires_at=NOW - 1), "b", True, ""),
        (IdentityRecord(name=M1, role="agent", key="a", expires_at=NOW + 1), "b", False, ""),
        (IdentityRecord(name=M1, role="agent", key="a", expires_at=NOW + 1, denied=True), "a", False, "shut out"),
        (IdentityRecord(name=M1, role="agent", key="a", expires_at=NOW - 1, denied=True), "b", False, "shut out"),
    ],
    ids=["new", "asks again", "another key", "expired", "is gone", "shut out", "shut out, another key"],
)
def test_what_is_in_the_way_of_joining(record: IdentityRecord | None, key: str, present: bool, why: str) -> None:
    found = in_the_way(record, key, present=present, now=NOW)
    assert why in found and bool(why) == bool(found)


class Masters:
    """Signs for an identity in `folder` unless it is `away`. `now` may be moved."""

    def __init__(self, folder: Path, days: float) -> None:
        self.now, self.away, self.asked = NOW, False, 0
        self.told: list[str] = []
        self._ca = certificates.make_ca("demo", NOW - 400 * DAY)
        self._key = certificates.make_key()
        identity.make_directory(folder)
        for name, raw in (
            ("ca.pem", self._ca.certificate),
            ("key.pem", self._key),
            ("cert.pem", self._sign(days)),
        ):
            wholefile.replace(folder / name, raw)
        self.contexts = Contexts(Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem"))
        self.asked_often = asyncio.Event()

    def _sign(self, left: float) -> bytes:
        who = Who(M1, Role.AGENT, (M1,))
        return certificates.sign_csr(
            self._ca, certificates.make_csr(self._key, M1), who, 30, NOW - (30 - left) * DAY
        )

    async def ask(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        self.now += LAST_PAUSE_S  # the next attempt is due at once
        if self.asked >= 3:
            self.asked_often.set()
        if self.away:
            raise StoreUnavailable("cannot renew the certificate: no master that signs is known")
        return self._sign(30)

    async def renew(self) -> None:
        renewal = Renewal(
            self.contexts, self.ask, now=lambda: self.now, rng=random.Random(1), tell=self.told.append
        )
        await renewal.run()


async def until(masters: Masters, event: asyncio.Event) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        renewing = tasks.create_task(masters.renew())
        await event.wait()
        renewing.cancel()


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (12, ""),
        (6, "the certificate expires in 6.0 days, and could not be renewed"),
        (-1, "has expired: join again"),
    ],
    ids=["half is left", "less than a quarter is left", "nothing is left"],
)
async def test_an_event_tells_once_of_a_certificate_that_is_nearly_over(
    tmp_path: Path, left: int, told: str
) -> None:
    masters = Masters(tmp_path / "tls", left)
    masters.away = True
    await until(masters, masters.asked_often)
    assert len(masters.told) == bool(told)
    assert all(told in message for message in masters.told)


async def test_a_renewed_certificate_is_written_for_its_owner_alone_and_taken_up(tmp_path: Path) -> None:
    masters = Masters(tmp_path / "tls", 12)
    before = (tmp_path / "tls/cert.pem").read_bytes()
    renewed = asyncio.Event()
    original = masters.contexts.reload

    def reload() -> bool:
        if original():
            renewed.set()
        return False

    masters.contexts.reload = reload  # type: ignore[method-assign]
    await until(masters, renewed)
    after = tmp_path / "tls/cert.pem"
    assert after.read_bytes() != before and after.stat().st_mode & 0o777 == 0o600
    assert masters.asked == 1 and not masters.told


def test_a_master_that_listens_everywhere_is_found_by_its_first_name_that_is_not_loopback(tmp_path: Path) -> None:
    def credentials_of(*hosts: str) -> Credentials:
        found = Certificate("one", "master", hosts, NOW, NOW + DAY, "k", False)
        contexts = Contexts(Files())
        return Credentials(identity.Identity(tmp_path, found), contexts, Signing(ca=b"", authority=None))

    made = credentials_of("127.0.0.1", "localhost", "10.0.0.1", "master1.example")
    assert made.known_as("0.0.0.0") == made.known_as("::") == "10.0.0.1"
    assert made.known_as("127.0.0.1") == "127.0.0.1"
    assert credentials_of("::1").known_as("0.0.0.0") == "127.0.0.1"


def test_nobody_speaks_less_than_tls_1_2_and_no_session_is_taken_up_again() -> None:
    server, client = server_context(Files()), client_context(Files())
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server.verify_mode is ssl.CERT_OPTIONAL and client.verify_mode is ssl.CERT_REQUIRED
    assert client.check_hostname and server.num_tickets == 0


def test_settings_of_etcd_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    credentials.check("", "", "")
    credentials.check("ca", "", "")
    with pytest.raises(InvalidConfig, match="one of them is missing"):
        credentials.check("ca", "cert", "")
    with pytest.raises(InvalidConfig, match="without etcd-ca"):
        credentials.check("", "cert", "key")
    assert credentials.source("", "", "") is None
    with pytest.raises(InvalidConfig, match="no such file"):
        credentials.source(str(tmp_path / "ca.pem"), "", "")
