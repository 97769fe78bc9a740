"""A daemon that has an identity begins its work, whatever has become of it; one without waits to be let in."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from unitfleet import certificates, enrolment, identity, wholefile
from unitfleet.certificates import Who
from unitfleet.enrolment import enrol
from unitfleet.errors import StoreUnavailable
from unitfleet.joinapi import Role
from unitfleet.jointoken import JoinToken

NAME, NOW = "a" * 32, 1_800_000_000.0
TOKEN = JoinToken(("https://127.0.0.1:1",), "0" * 64, "t", "secret")


def an_identity(directory: Path, *, days: float) -> None:
    """Write an identity whose certificate was made a hundred days ago, for so many."""
    made = NOW - 100 * 86_400
    ca, key = certificates.make_ca("test", made), certificates.make_key()
    csr = certificates.make_csr(key, NAME)
    signed = certificates.sign_csr(ca, csr, Who(NAME, Role.AGENT), days, made)
    for name, content in ((identity.CA, ca.certificate), (identity.KEY, key), (identity.CERTIFICATE, signed)):
        wholefile.replace(directory / name, content)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let no master be reached, and have a daemon wait for none; gives what was asked."""
    found: list[str] = []

    def join(*of: object) -> None:
        found.append("join")
        raise StoreUnavailable("cannot reach a master: nobody is there")

    monkeypatch.setattr(enrolment, "join", join)
    monkeypatch.setattr(enrolment, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(enrolment, "AGAIN_S", 0.05)
    return found


async def begins(directory: Path) -> None:
    told = await enrol(directory, Role.AGENT, NAME, TOKEN, now=lambda: NOW, rng=random.Random(1))
    assert told is None


async def test_with_an_expired_certificate_and_no_master_it_tries_and_then_tends_its_units(
    tmp_path: Path, asked: list[str]
) -> None:
    an_identity(tmp_path, days=30)
    await begins(tmp_path)
    assert len(asked) > 1


async def test_with_a_good_certificate_nobody_is_asked(tmp_path: Path, asked: list[str]) -> None:
    an_identity(tmp_path, days=130)
    await begins(tmp_path)
    assert asked == []
