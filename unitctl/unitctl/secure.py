"""TLS to an endpoint: whom to trust, what to show, and why it failed, in words. Loaded for https:// alone."""

from __future__ import annotations

import functools
import http.client
import os
import socket
import ssl
import time
from pathlib import Path

from unitctl.context import Endpoint, Trust
from unitfleet.errors import InvalidConfig, UnitfleetError
from unitfleet.tls import Files, client_context, unverified_context

PROBE_S = 1.0

_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_HUNG_UP = "closed the connection before TLS began: is it an http:// endpoint?"


class Distrusted(OSError):
    """A TLS connection that was not made; the text says why and what to do."""


def context_for(trust: Trust, endpoint: Endpoint, timeout_s: float) -> ssl.SSLContext:
    """Return the context for an endpoint; by a digest the authority is fetched there first. Raises OSError."""
    cert, key = _path(trust.cert_file), _path(trust.key_file)
    if bool(cert) != bool(key):
        raise InvalidConfig("cannot use the context: cert-file and key-file go together")
    ca = None
    if trust.ca_digest and not trust.ca_file:
        try:
            ca = _authority(endpoint.host, endpoint.port, trust.ca_digest, timeout_s)
        except ssl.SSLError as error:
            raise Distrusted(why(error, trust)) from error
        except UnitfleetError as error:
            raise Distrusted(error.message) from error
    return client_context(Files(ca=_path(trust.ca_file), cert=cert, key=key), ca=ca)


@functools.cache
def _authority(host: str, port: int, digest: str, timeout_s: float) -> bytes:
    """Fetch an authority, once for all the connections of a command."""
    from unitfleet.joining import fetch_ca  # it reads certificates: that takes its tenth of a second

    return fetch_ca(host, port, digest, timeout_s)


def wrapped(context: ssl.SSLContext, plain: socket.socket, endpoint: Endpoint, trust: Trust) -> ssl.SSLSocket:
    """Begin TLS on a connected socket; raises `Distrusted`, or OSError for a connection that broke."""
    try:
        return context.wrap_socket(plain, server_hostname=endpoint.host)
    except ssl.SSLError as error:
        raise Distrusted(why(error, trust)) from error
    except (ConnectionError, ssl.CertificateError) as error:
        raise Distrusted(expired(trust) or _HUNG_UP) from error


def why(error: ssl.SSLError, trust: Trust) -> str:
    """Say in a few words why TLS failed."""
    if (error.reason or "") in _PLAIN:
        return "does not speak TLS: is it an http:// endpoint?"
    if isinstance(error, ssl.SSLCertVerificationError):
        told = error.verify_message
        if "self-signed" in told or "unable to get" in told or "signature failure" in told:
            named = bool(trust.ca_file or trust.ca_digest)
            hint = "the context's ca-file is of another" if named else "the context names no ca-file"
            return f"is not of a cluster that is trusted here ({told}): {hint}"
        return f"shows a certificate that can't be trusted: {told}"
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "alert" in reason:
        return expired(trust) or f"does not take our certificate ({reason})"
    if "eof" in reason:
        return expired(trust) or _HUNG_UP
    return f"TLS failed: {reason}"


def expired(trust: Trust) -> str:
    """Return that our own certificate is over, "" when it is not: a server just hangs up on it."""
    if not trust.cert_file:
        return ""
    from unitfleet import certificates

    try:
        found = certificates.read(Path(os.path.expanduser(trust.cert_file)).read_bytes())
    except (OSError, UnitfleetError):
        return ""
    if found.not_after > time.time():
        return ""
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.not_after))
    return f"takes no certificate that has expired, and {trust.cert_file} did on {ended}"


def speaks_tls(endpoint: Endpoint) -> bool:
    """Tell whether an endpoint that did not answer plain HTTP begins TLS; nothing is sent to it."""
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), PROBE_S) as plain,
            unverified_context().wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def denied_by_tls(error: BaseException, trust: Trust) -> str:
    """Return why an answer never came because of our certificate, "" for any other reason.

    In TLS 1.3 a server refuses a certificate after the client thinks that the connection stands.
    """
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return why(error, trust)
    if isinstance(error, ssl.SSLError | ConnectionError | http.client.RemoteDisconnected):
        return expired(trust)  # any other end may have come after the request was carried out
    return ""


def _path(text: str) -> Path | None:
    return Path(os.path.expanduser(text)) if text else None
