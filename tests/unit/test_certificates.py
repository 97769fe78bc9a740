"""The cluster's authority and what it signs; the files they lie in; the word by which a host joins."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitfleet import identity, jointoken, wholefile
from unitfleet.certificates import (
    AGENT_DAYS,
    CA_DAYS,
    Authority,
    Who,
    csr_key,
    digest,
    fits,
    issued_by,
    make_ca,
    make_csr,
    make_key,
    read,
    sign_csr,
)
from unitfleet.errors import InvalidConfig, Refused
from unitfleet.joinapi import Role
from unitfleet.jointoken import JoinToken

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture(scope="module")
def ca() -> Authority:
    return make_ca("demo", NOW)


def signed(ca: Authority, who: Who, days: float = AGENT_DAYS) -> tuple[bytes, bytes]:
    key = make_key()
    return sign_csr(ca, make_csr(key, "whatever it calls itself"), who, days, NOW), key


def test_the_authority_is_good_for_ten_years_and_signs_no_other(ca: Authority) -> None:
    found = read(ca.certificate)
    assert found.is_authority and found.not_after == NOW + CA_DAYS * DAY
    assert issued_by(ca.certificate, ca.certificate)
    assert len(digest(ca.certificate)) == 64 and digest(make_ca("demo", NOW).certificate) != digest(ca.certificate)


def test_who_signs_says_who_it_is_whatever_the_request_says(ca: Authority) -> None:
    certificate, key = signed(ca, Who("m1", Role.AGENT, ("m1",)))
    found = read(certificate)
    assert (found.name, found.role, found.hosts, found.is_authority) == ("m1", "agent", ("m1",), False)
    assert found.not_after == NOW + AGENT_DAYS * DAY
    assert found.not_before < NOW, "a host whose clock is behind takes it too"
    assert fits(certificate, key) and not fits(certificate, make_key())
    assert issued_by(certificate, ca.certificate)
    assert not issued_by(certificate, make_ca("demo", NOW).certificate), "a name is no proof"


def test_a_certificate_does_not_outlive_the_authority(ca: Authority) -> None:
    certificate, _ = signed(ca, Who("m1", Role.AGENT), days=2 * CA_DAYS)
    assert read(certificate).not_after == read(ca.certificate).not_after


def test_what_is_left_of_a_certificate_is_a_share_of_its_time(ca: Authority) -> None:
    found = read(signed(ca, Who("m1", Role.AGENT), days=10)[0])
    assert found.left(NOW) == pytest.approx(1.0, abs=0.01)
    assert found.left(NOW + 5 * DAY) == pytest.approx(0.5, abs=0.01)
    assert (found.left(NOW - DAY), found.left(NOW + 11 * DAY)) == (1.0, 0.0)


def test_a_request_is_taken_only_from_who_has_the_key(ca: Authority) -> None:
    key = make_key()
    request = make_csr(key, "m1")
    assert csr_key(request) == csr_key(make_csr(key, "m2")) != csr_key(make_csr(make_key(), "m1"))
    lines = request.decode().splitlines()
    lines[-2] = lines[-2][:4] + ("A" if lines[-2][4] != "A" else "B") + lines[-2][5:]
    for bad in ("\n".join(lines).encode(), b"", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", ca.certificate):
        with pytest.raises(Refused, match="cannot sign the request"):
            sign_csr(ca, bad, Who("m1", Role.AGENT), 1, NOW)


def test_an_identity_is_read_only_when_its_parts_fit(tmp_path: Path, ca: Authority) -> None:
    certificate, key = signed(ca, Who("m1", Role.AGENT))
    identity.make_directory(tmp_path / "tls")
    files = {"ca.pem": ca.certificate, "cert.pem": certificate, "key.pem": key}
    for name, raw in files.items():
        wholefile.replace(tmp_path / "tls" / name, raw)
        assert stat.S_IMODE((tmp_path / "tls" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert identity.load(tmp_path / "tls", Role.AGENT).certificate.name == "m1"
    with pytest.raises(InvalidConfig, match="that of agent m1, not of a master"):
        identity.load(tmp_path / "tls", Role.MASTER)
    wholefile.replace(tmp_path / "tls/ca.pem", make_ca("demo", NOW).certificate)
    with pytest.raises(InvalidConfig, match="another authority"):
        identity.load(tmp_path / "tls", Role.AGENT)
    wholefile.replace(tmp_path / "tls/key.pem", make_key())
    with pytest.raises(InvalidConfig, match=r"not of the key"):
        identity.load(tmp_path / "tls", Role.AGENT)
    (tmp_path / "tls/key.pem").chmod(0o640)
    with pytest.raises(InvalidConfig, match="others can read it"):
        identity.load(tmp_path / "tls", Role.AGENT)


TOKEN = JoinToken(("https://10.0.0.1:4001", "https://[fd00::1]:4001"), "ab" * 32, "k3x9", "cd" * 24)


def test_a_token_is_one_word_that_carries_everything() -> None:
    text = jointoken.write(TOKEN)
    assert text.startswith("ufj1.") and not set(text) & set(" =\n")
    assert jointoken.read(f" {text}\n") == TOKEN
    assert TOKEN.secret not in repr(TOKEN) and TOKEN.secret not in text
    assert jointoken.hashed(TOKEN.secret) != TOKEN.secret


@given(st.data())
def test_a_letter_that_is_wrong_or_missing_is_told_and_the_token_is_not(data: st.DataObject) -> None:
    text = jointoken.write(TOKEN)
    place = data.draw(st.integers(len("ufj1."), len(text) - 2))
    letter = data.draw(st.sampled_from("abcxyzABC019-_ é"))
    changed = text[:place] + letter + text[place + 1 :]
    for bad in (changed if changed != text else "", text[:place], text[:place] + text[place + 1 :]):
        with pytest.raises(InvalidConfig, match="cannot read the join token") as caught:
            jointoken.read(bad)
        assert text[6:30] not in str(caught.value)
