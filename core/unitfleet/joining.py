"""Joining a cluster, as a new host does it: by a token, over a connection that shows itself to be the cluster's.

1. a key is made, which stays here; 2. the authority is fetched from a master that nobody trusts yet, and compared
with the digest in the token; 3. over TLS by that authority the request, the host's id and the secret are sent.
A mismatch ends it before anything but a GET was sent. Blocking: a daemon calls it in a thread.
"""

from __future__ import annotations

import hmac
import http.client
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from unitfleet import certificates, foreign, identity, wholefile
from unitfleet.api import ErrorBody
from unitfleet.errors import Refused, StoreUnavailable, UnitfleetError
from unitfleet.joinapi import JOINED, JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, Role
from unitfleet.jointoken import JoinToken
from unitfleet.tls import Files, client_context, unverified_context

CA_PATH = "/v1/ca"
JOIN_PATH = "/v1/join"
RENEW_PATH = "/v1/renew"
ANSWER_S = 10.0
MAX_ANSWER = 64 * 1024
TOO_MANY = 429
"""Many hosts behind one address join at once: not a no, but later."""

NOT_YET = "not_yet"
"""An agent of our id is still there: it ends, or its presence does."""


class JoinRefused(Refused):
    """A master said no: asking again says no again."""


def fetch_ca(host: str, port: int, digest: str, timeout_s: float = ANSWER_S) -> bytes:
    """Return the authority that a master shows, once it is the one of this digest.

    Raises `JoinRefused` when it is another one; OSError and HTTPException when nothing can be had.
    """
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=unverified_context())
    try:
        connection.request("GET", CA_PATH)
        answer = connection.getresponse()
        raw = answer.read(MAX_ANSWER)
    finally:
        connection.close()
    try:
        shown = certificates.digest(raw)
    except UnitfleetError:
        shown = ""
    expected = digest.replace(":", "").lower()  # as openssl writes it, too
    if answer.status != 200 or not hmac.compare_digest(shown.encode(), expected.encode()):
        told = f"it shows {shown[:16]}…, not {expected[:16]}…" if shown else "it shows no authority"
        raise JoinRefused(
            f"cannot trust {host}:{port}: it is of another cluster than expected ({told}); nothing was sent",
            hint="somebody may stand between, or the cluster was made anew: take a new token from its admin",
        )
    return raw


def join(directory: Path, token: JoinToken, role: Role, name: str, hosts: tuple[str, ...] = ()) -> JoinAnswer:
    """Get an identity for this host and write it to `directory`; each master of the token is asked in turn.

    A key that is there already is used again: after a lost answer the same question gets its answer. Raises
    `JoinRefused`, and `StoreUnavailable` when no master answered.
    """
    identity.make_directory(directory)
    key = _own_key(directory)
    request = JoinRequest(
        id=token.id,
        secret=token.secret,
        role=role.value,
        name=name,
        hosts=hosts,
        csr=certificates.make_csr(key, name).decode(),
    )
    body = msgspec.json.encode(request)
    reasons = []
    for endpoint in token.endpoints:
        host, port = _address(endpoint)
        try:
            ca = fetch_ca(host, port, token.ca)
            raw = _post(endpoint, JOIN_PATH, body, client_context(Files(), ca=ca))
            answer = foreign.decode(raw, JoinAnswer)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, StoreUnavailable) as error:
            reasons.append(f"{endpoint}: {_why(error)}")
            continue
        certificate = answer.certificate.encode()
        if not certificates.fits(certificate, key) or not certificates.issued_by(certificate, ca):
            raise JoinRefused(f"cannot join: {endpoint} answered with a certificate that is not ours")
        wholefile.replace(directory / identity.CA, ca)
        wholefile.replace(directory / JOINED, raw)
        wholefile.replace(directory / identity.CERTIFICATE, certificate)  # last: with it the host has joined
        return answer
    raise StoreUnavailable(
        f"cannot join: no master answered: {'; '.join(reasons) or 'the token names none'}",
        hint="is a unit-master running there, and can this host reach it?",
    )


def renew(files: Files, endpoints: Sequence[str]) -> bytes:
    """Return a new certificate for our key, asked for with the present one; each master is asked in turn.

    Raises `JoinRefused`, and `StoreUnavailable` when no master that signs answered.
    """
    assert files.cert is not None and files.key is not None
    key = identity.read_secret(files.key)
    present = certificates.read(identity.read_file(files.cert))
    body = msgspec.json.encode(RenewRequest(csr=certificates.make_csr(key, present.name).decode()))
    reasons = []
    for endpoint in endpoints:
        try:
            raw = _post(endpoint, RENEW_PATH, body, client_context(files))
            certificate = foreign.decode(raw, RenewAnswer).certificate.encode()
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, StoreUnavailable) as error:
            reasons.append(f"{endpoint}: {_why(error)}")
            continue
        assert files.ca is not None
        if not certificates.fits(certificate, key) or not certificates.issued_by(
            certificate, identity.read_file(files.ca)
        ):
            reasons.append(f"{endpoint}: it answered with a certificate that is not ours")
            continue
        return certificate
    raise StoreUnavailable(
        f"cannot renew the certificate: {'; '.join(reasons) or 'no master that signs is known'}",
        hint="a master with the authority's key (ca.key) has to run",
    )


def _own_key(directory: Path) -> bytes:
    path = directory / identity.KEY
    if path.exists():
        return identity.read_secret(path)
    key = certificates.make_key()
    wholefile.replace(path, key)
    return key


def _post(endpoint: str, path: str, body: bytes, context: ssl.SSLContext) -> bytes:
    """Return what a master answers; raises `JoinRefused` for a no, `StoreUnavailable` for a try elsewhere."""
    host, port = _address(endpoint)
    connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=context)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read(MAX_ANSWER)
    finally:
        connection.close()
    if answer.status < 300:
        return raw
    try:
        told = foreign.decode(raw, ErrorBody)
    except msgspec.MsgspecError:
        raise StoreUnavailable(f"it answered {answer.status}") from None
    if answer.status >= 500 or answer.status == TOO_MANY or told.code == NOT_YET:
        raise StoreUnavailable(told.message, hint=told.hint)
    raise JoinRefused(told.message, hint=told.hint or None)


def _address(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or 443


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return (
            "it does not speak TLS" if "VERSION" in reason else f"TLS failed: {reason.lower().replace('_', ' ')}"
        )
    if isinstance(error, OSError):
        return (error.strerror or str(error) or "no answer in time").lower()
    return str(error) or type(error).__name__
