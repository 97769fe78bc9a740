"""TLS as Unitfleet speaks it: 1.3, or at least 1.2, by stdlib `ssl`; who the other side is by its certificate.

A server asks for a certificate and takes connections without one: what they may do then is decided by what they
carry (a token). One of another authority, or one that has expired, ends the handshake.

Masters are known by the address they are asked at, agents by their machine id, whatever their address is now.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitfleet.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom the other side's certificate names: `role` is a `joinapi.Role`, or what an outsider wrote.

    A connection outlives the certificate that it began with: `not_after` (seconds since 1970) is looked at again.
    """

    name: str
    role: str
    not_after: float


@dataclass(frozen=True, slots=True)
class Files:
    """Where an identity lies. Without `cert` we show none; without `ca` the system's authorities are trusted."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Contexts:
    """The contexts of one identity. `reload` lets new connections use what lies there now; open ones go on."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.server = server_context(files)
        self.client = client_context(files)
        self.anonymous = client_context(Files(ca=files.ca))
        """Knows whom to trust and shows nothing: for what is passed on for others."""
        self._loaded = _stamps(files)

    def reload(self) -> bool:
        """Read the files again if they are others by now; tell whether they were. Raises `InvalidConfig`."""
        stamps = _stamps(self.files)
        if stamps == self._loaded:
            return False
        for context in (self.server, self.client):
            _load(context, self.files)
        self._loaded = stamps
        return True


def server_context(files: Files) -> ssl.SSLContext:
    """Return what a listener needs; raises `InvalidConfig`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET  # a resumed session would not look at the certificate again
    context.num_tickets = 0
    _trust(context, files)
    _load(context, files)
    return context


def client_context(files: Files, *, ca: bytes | None = None) -> ssl.SSLContext:
    """Return what a client needs that trusts `files.ca` or the PEM in `ca`; raises `InvalidConfig`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    elif files.ca is None:
        context.load_default_certs()
    else:
        _trust(context, files)
    _load(context, files)
    return context


def unverified_context() -> ssl.SSLContext:
    """Return a context that trusts everybody: only to fetch what is checked by its digest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def peer_of(certificate: Mapping[str, Any] | None) -> Peer | None:
    """Return whom a verified certificate names, as `getpeercert` tells it; None when none was shown."""
    if not certificate:
        return None
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    return Peer(
        name=subject.get("commonName", ""),
        role=subject.get("organizationName", ""),
        not_after=float(ssl.cert_time_to_seconds(certificate["notAfter"])),
    )


def _trust(context: ssl.SSLContext, files: Files) -> None:
    if files.ca is None:
        return
    try:
        context.load_verify_locations(cafile=files.ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(
            f"cannot use {files.ca}: {_why(error)}", hint="it holds an authority as PEM"
        ) from error


def _load(context: ssl.SSLContext, files: Files) -> None:
    if files.cert is None:
        return
    try:
        context.load_cert_chain(files.cert, files.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(
            f"cannot use {files.cert} with {files.key}: {_why(error)}", hint="they hold a certificate and its key"
        ) from error


def _stamps(files: Files) -> tuple[tuple[int, int], ...]:
    found = []
    for path in (files.cert, files.key):
        try:
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        found.append((status.st_mtime_ns, status.st_ino) if status else (0, 0))
    return tuple(found)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM").lower().replace("_", " ")
    return (error.strerror or str(error)).lower()
