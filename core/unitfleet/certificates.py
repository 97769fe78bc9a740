"""Making and reading certificates: a cluster's own authority, and what it signs. Pure functions over PEM.

A certificate says who somebody is (CN) and as what (O, a `Role`). The names it is good for as a server are chosen
by who signs, never by who asks: an agent's is its machine id alone, so that no agent can stand in for a master.
It takes a tenth of a second to import: unitctl does so where it is needed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from unitfleet.errors import InvalidConfig, Refused
from unitfleet.joinapi import Role

CA_DAYS = 3650
SERVER_DAYS = 90
OPERATOR_DAYS = 90
AGENT_DAYS = 30

BACKDATED = timedelta(minutes=5)
"""A host whose clock is behind takes a new certificate all the same."""


_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z-]{0,62})(\.[0-9A-Za-z]([0-9A-Za-z-]{0,62}))*")


_SERVES = (Role.MASTER, Role.AGENT)


@dataclass(frozen=True, slots=True)
class Authority:
    """A cluster's CA, as PEM; who has the key is root on the fleet."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a certificate names: `name` is a machine's id, a master's name or an operator's.

    `hosts` are the names and addresses that it serves under.
    """

    name: str
    role: Role
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. Times are seconds since 1970; `key` is the SHA-256 of the public key."""

    name: str
    role: str
    hosts: tuple[str, ...]
    not_before: float
    not_after: float
    key: str
    is_authority: bool

    def left(self, now: float) -> float:
        """Return which share of its time is left: 1 when new, 0 when expired."""
        return max(0.0, min(1.0, (self.not_after - now) / (self.not_after - self.not_before)))


def make_key() -> bytes:
    """Return a new P-256 key as PEM, not encrypted: its file is its owner's alone."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_ca(name: str, now: float) -> Authority:
    """Make the authority of a cluster, good for ten years; it signs certificates and no further authority."""
    key = make_key()
    loaded = _key(key)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Unitfleet CA of {name}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "unitfleet"),
        ]
    )
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _dated(subject, subject, loaded.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(loaded.public_key()), critical=False)
        .sign(loaded, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), key)


def make_csr(key: bytes, name: str) -> bytes:
    """Return a signing request of this key, as PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_key(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def csr_key(csr: bytes) -> str:
    """Return the SHA-256 of the public key that a request is for, once it is shown that its maker has the key.

    Raises `Refused` for what is no request, of another kind of key, or not signed by it.
    """
    return _digest(_public(_csr(csr).public_key()))


def sign_csr(ca: Authority, csr: bytes, who: Who, days: float, now: float) -> bytes:
    """Return the certificate that `who` gets for the key of a request, as PEM; what else the request says is left.

    Masters and agents serve and ask; an operator only asks. It ends no later than the authority does. Raises
    `Refused` for a request that can't be used.
    """
    authority = x509.load_pem_x509_certificate(ca.certificate)
    public = _csr(csr).public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Refused("cannot sign the request: it is for another kind of key than P-256")
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, who.name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, who.role.value),
        ]
    )
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if who.role in _SERVES:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    signing = _key(ca.key)
    builder = (
        _dated(subject, authority.subject, public, now, days, until=authority.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    if who.hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(_names(who.hosts)), critical=False)
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def digest(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate's DER, in hexadecimal digits: by it an authority is known."""
    return _digest(_certificate(certificate).public_bytes(serialization.Encoding.DER))


def read(certificate: bytes) -> Certificate:
    """Return what a certificate says; raises `InvalidConfig` for what is none."""
    found = _certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(name.value) for name in names)
    except x509.ExtensionNotFound:
        hosts = ()
    try:
        is_authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    return Certificate(
        name=_word(found.subject, NameOID.COMMON_NAME),
        role=_word(found.subject, NameOID.ORGANIZATION_NAME),
        hosts=hosts,
        not_before=found.not_valid_before_utc.timestamp(),
        not_after=found.not_valid_after_utc.timestamp(),
        key=_digest(_public(found.public_key())),
        is_authority=is_authority,
    )


def is_host(text: str) -> bool:
    """Tell whether `text` can be the address or the name of a host."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= 253 and _HOST.fullmatch(text) is not None
    return True


def fits(certificate: bytes, key: bytes) -> bool:
    """Tell whether a certificate is of this key; raises `InvalidConfig` for what is neither."""
    return read(certificate).key == _digest(_public(_key(key).public_key()))


def issued_by(certificate: bytes, authority: bytes) -> bool:
    """Tell whether the authority signed the certificate."""
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _dated(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: float,
    days: float,
    until: datetime | None = None,
) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(now, UTC)
    end = begin + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - BACKDATED)
        .not_valid_after(min(end, until) if until else end)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            found.append(x509.DNSName(host))
    return found


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None  # what the library says could quote the key
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidConfig("cannot read the key: it is no P-256 key in PEM, or it has a passphrase")
    return key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise InvalidConfig("cannot read the certificate: it is no X.509 in PEM") from error


def _csr(pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(pem)
        public = request.public_key()
        sound = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused("cannot sign the request: it is no signing request in PEM") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Refused("cannot sign the request: it is for another kind of key than P-256")
    if not sound:
        raise Refused("cannot sign the request: it is not signed by its own key")
    return request


def _public(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    raw: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return raw


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _word(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""
