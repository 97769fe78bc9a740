"""`unitctl cluster init`: a cluster's authority, its first master's identity, an admin's. Nothing is asked."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unitctl import context
from unitfleet import certificates, identity, wholefile
from unitfleet.certificates import OPERATOR_DAYS, SERVER_DAYS, Authority, Who
from unitfleet.errors import InvalidConfig, Refused
from unitfleet.joinapi import Role

PORT = 4001
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Founded:
    """What was made, and where."""

    digest: str
    directory: Path
    admin_directory: Path
    endpoints: tuple[str, ...]
    config_file: Path


def found(directory: Path, name: str, hosts: tuple[str, ...], port: int, env: Mapping[str, str]) -> Founded:
    """Make the authority and the first identities; raises `Refused` where anything is there already."""
    hosts = tuple(dict.fromkeys(_checked(host) for host in (hosts or _own_hosts())))
    admin_directory = context.config_file(env).parent / name
    for path in (directory / identity.CA, directory / identity.CA_KEY, admin_directory / identity.KEY):
        if path.exists():
            raise Refused(
                f"cannot make a cluster in {directory}: {path} is there",
                hint="an authority that is lost takes its cluster along: move it away by hand, if that is meant",
            )
    if name in context.names(env):
        raise Refused(
            f"cannot make context {name}: unitctl has one of this name", hint="--name gives the cluster another"
        )
    now = time.time()
    ca = certificates.make_ca(name, now)
    endpoints = tuple(f"https://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts)
    identity.make_directory(directory)
    try:
        _write(admin_directory, ca, Who(os.environ.get("USER") or "admin", Role.ADMIN), OPERATOR_DAYS, now)
        wholefile.replace(directory / identity.CA_KEY, ca.key)
        _write(directory, ca, Who(_host_name(), Role.MASTER, (*hosts, *LOOPBACK)), SERVER_DAYS, now)
        _hand_over(directory)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidConfig(f"cannot write the identities: {why}", hint="--dir names another directory") from error
    trust = context.Trust(
        ca_file=str(admin_directory / identity.CA),
        cert_file=str(admin_directory / identity.CERTIFICATE),
        key_file=str(admin_directory / identity.KEY),
    )
    written = context.save(name, endpoints, "", env, trust=trust)
    return Founded(certificates.digest(ca.certificate), directory, admin_directory, endpoints, written)


def admit(authority: Path, folder: Path, name: str) -> float:
    """Write an admin's identity to `folder`, signed with the authority's key in `authority`; return when it ends.

    A key that is there stays: that is a renewal. Raises `InvalidConfig`.
    """
    ca = Authority(identity.read_file(authority / identity.CA), identity.read_secret(authority / identity.CA_KEY))
    now = time.time()
    try:
        _write(folder, ca, Who(name, Role.ADMIN), OPERATOR_DAYS, now)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidConfig(f"cannot write to {folder}: {why}") from error
    return now + OPERATOR_DAYS * 86400


def _write(directory: Path, ca: Authority, who: Who, days: float, now: float) -> None:
    identity.make_directory(directory)
    path = directory / identity.KEY
    key = identity.read_secret(path) if path.exists() else certificates.make_key()
    certificate = certificates.sign_csr(ca, certificates.make_csr(key, who.name), who, days, now)
    wholefile.replace(path, key)
    wholefile.replace(directory / identity.CERTIFICATE, certificate)
    wholefile.replace(directory / identity.CA, ca.certificate)


def _hand_over(directory: Path) -> None:
    """Give what root made there to whom the state directory belongs: a packaged master is not root."""
    if os.geteuid() != 0:
        return
    owner = directory.parent.stat()
    for path in (directory, *directory.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _checked(host: str) -> str:
    if not certificates.is_host(host.strip()):
        raise InvalidConfig(
            f"cannot use the host {host!r}: it is no name and no address", hint="--hosts 10.0.0.1,master1.example"
        )
    return host.strip().lower()


def _host_name() -> str:
    return socket.gethostname().split(".")[0] or "master"


def _own_hosts() -> tuple[str, ...]:
    """Return this host's name and the address that it speaks from; connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return (probe.getsockname()[0], _host_name())
        except OSError:
            return (_host_name(),)
