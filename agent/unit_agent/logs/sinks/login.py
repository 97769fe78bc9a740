"""Secrets and TLS of a sink, from files on this host: never from a URL, never into a log or an event."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from unit_agent.logs.sinks.address import SinkAddress
from unitfleet.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Login:
    """A token, or a user with a password; all "" without a token file."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def login(address: SinkAddress) -> Login:
    """Read `token-file=`: one line, a token or `USER:PASSWORD`. Raises `InvalidConfig`."""
    path = address.query.get("token-file", "")
    if not path:
        return Login()
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot use log-sinks: {address.shown()}: cannot read {path}: {error}") from error
    if not text or "\n" in text:
        raise InvalidConfig(
            f"cannot use log-sinks: {address.shown()}: {path} does not hold one line",
            hint="a token, or USER:PASSWORD",
        )
    user, colon, password = text.partition(":")
    return Login(user=user, password=password) if colon else Login(token=text)


def tls(address: SinkAddress) -> ssl.SSLContext | None:
    """Return the context of `tls=yes` (and `ca-file=`), None without. Raises `InvalidConfig`."""
    ca_file = address.query.get("ca-file")
    if not (address.flag("tls") or ca_file):
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(f"cannot use log-sinks: {address.shown()}: cannot read {ca_file}: {error}") from error
