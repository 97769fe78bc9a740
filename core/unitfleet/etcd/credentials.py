"""What is shown to etcd, from files: `--etcd-ca`, `--etcd-cert`, `--etcd-key` of both daemons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unitfleet.errors import InvalidConfig

if TYPE_CHECKING:
    from unitfleet.etcd.endpoint import Tls


def check(ca: str, cert: str, key: str) -> None:
    """Raise `InvalidConfig` for settings that don't go together."""
    if bool(cert) != bool(key):
        raise InvalidConfig("cannot use etcd-cert and etcd-key: one of them is missing", hint="give both, or none")
    if cert and not ca:
        raise InvalidConfig(
            "cannot use etcd-cert: without etcd-ca etcd is not asked by TLS", hint="--etcd-ca FILE"
        )


def source(ca: str, cert: str, key: str) -> Callable[[], Tls] | None:
    """Return what reads the files each time a connection is made; None when etcd is asked without TLS.

    Raises `InvalidConfig` when they can't be read now.
    """
    if not ca:
        return None
    from unitfleet.etcd.endpoint import Tls

    def read() -> Tls:
        return Tls(
            authority=_content(ca),
            key=_content(key) if key else None,
            certificate=_content(cert) if cert else None,
        )

    read()
    return read


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidConfig(f"cannot use {path}: {(error.strerror or str(error)).lower()}") from error
