"""A master's identity: what it serves and asks with, what it signs with, and under which name others find it."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unit_master.cache import Cache
from unit_master.joins import Joins, Signing, signing_masters
from unit_master.settings import MasterConfig
from unitfleet import certificates, identity
from unitfleet.enrolment import enrol, read_token
from unitfleet.identity import Identity
from unitfleet.joinapi import RenewRequest, Role
from unitfleet.joining import renew
from unitfleet.renewal import Renewal
from unitfleet.tls import Contexts, Files


@dataclass(frozen=True, slots=True)
class Credentials:
    """An identity with the contexts that show it."""

    identity: Identity
    contexts: Contexts
    signing: Signing

    def known_as(self, host: str) -> str:
        """Return what others call the address that this master listens on: all of them has no name of its own."""
        if not _is_unspecified(host):
            return host
        hosts = self.identity.certificate.hosts
        return next((name for name in hosts if not _is_loopback(name)), "127.0.0.1")

    def renewal(self, joins: Joins, cache: Cache, *, now: Callable[[], float], rng: random.Random) -> Renewal:
        """Return what keeps the certificate alive: it signs for itself, or asks a master that can."""
        files = self.contexts.files

        async def ask() -> bytes:
            if not self.identity.signs:
                return await asyncio.to_thread(renew, files, signing_masters(cache.view))
            key = await asyncio.to_thread(identity.read_secret, self.identity.key_file)
            present = certificates.read(await asyncio.to_thread(identity.read_file, self.identity.cert_file))
            request = RenewRequest(csr=certificates.make_csr(key, present.name).decode())
            answer = await joins.renew(request, Role.MASTER, present.name, present.hosts)
            return answer.certificate.encode()

        return Renewal(self.contexts, ask, now=now, rng=rng)


async def get_credentials(config: MasterConfig, *, now: Callable[[], float], rng: random.Random) -> Credentials:
    """Read the master's identity, joining first where it has none; raises `InvalidConfig`, `JoinRefused`."""
    token = read_token(config.join, config.join_file)
    hosts = own_hosts(config.address[0]) if token else ()
    await enrol(config.tls_path, Role.MASTER, config.name, token, hosts=hosts, now=now, rng=rng)
    return read_credentials(config)


def read_credentials(config: MasterConfig) -> Credentials:
    """Read the master's identity; raises `InvalidConfig`."""
    found = identity.load(config.tls_path, Role.MASTER)
    ca = identity.read_file(found.ca_file)
    by_identity = bool(config.etcd_ca) and identity.read_file(Path(config.etcd_ca)) == ca
    signing = Signing(
        ca=ca,
        authority=found.authority() if found.signs else None,
        etcd=config.etcd,
        etcd_by_identity=by_identity,
    )
    return Credentials(found, Contexts(Files(found.ca_file, found.cert_file, found.key_file)), signing)


def own_hosts(listen: str) -> tuple[str, ...]:
    """Return the names under which a master that listens there is asked."""
    name = socket.gethostname()
    if not _is_unspecified(listen):
        return (listen, name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the way
            return (probe.getsockname()[0], name)
        except OSError:
            return (name,)


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
