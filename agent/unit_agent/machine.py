"""Which machine this is: identity, names, addresses. What it offers is in `unit_agent.resources.meter`.

The identity is a random id, made once and kept beside a fingerprint of the host, never /etc/machine-id itself:
images are cloned with it. A host whose fingerprint is not the one beside the id is another host, and gets an
identity of its own.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from unit_agent.local_copy import LocalCopy
from unitfleet import codec
from unitfleet.errors import BadRecord, InvalidConfig
from unitfleet.model import Capacity, Record
from unitfleet.policy import Policy

logger = logging.getLogger(__name__)

IDENTITY = "machine.json"


@dataclass(frozen=True, slots=True)
class Facts:
    """What an agent says of its machine. `port` is that of its listener; `fingerprint` that of the host.

    `specifiers` are the `%` letters of unit texts that are the host's own. What is sealed to `public_key`, this
    machine alone can open.
    """

    id: str
    name: str
    boot_id: str
    fingerprint: str
    address: str = "127.0.0.1"
    port: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    capacity: Capacity = field(default_factory=Capacity)
    specifiers: dict[str, str] = field(default_factory=dict)
    policy: Policy | None = None
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells hosts apart, each part hashed. `nics` are the network cards that belong to the host."""

    machine_id: str
    product: str
    nics: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The fingerprint in one word."""
        return _hash("\n".join((self.machine_id, self.product, *self.nics)))

    def same_host(self, other: Fingerprint) -> bool:
        """Tell whether both are of one host: a card may be added or swapped, not all of them at once.

        A network that is not up yet shows no cards: that tells nothing.
        """
        if (self.machine_id, self.product) != (other.machine_id, other.product):
            return False
        return not self.nics or not other.nics or bool(set(self.nics) & set(other.nics))


class Identity(Record, frozen=True, kw_only=True):
    """`machine.json`."""

    id: str
    machine_id: str
    product: str
    nics: tuple[str, ...]

    @property
    def fingerprint(self) -> Fingerprint:
        """The host that the id was made for."""
        return Fingerprint(self.machine_id, self.product, self.nics)


async def identify(local: LocalCopy, host: Fingerprint, rng: random.Random) -> Identity:
    """Return the identity of this host, made now if there is none, or if the one kept is another host's.

    Raises `InvalidConfig` when the file is damaged: to make a new identity would disown what runs here.
    """
    raw = await local.read(IDENTITY)
    kept = None
    if raw is not None:
        try:
            kept = codec.decode(raw, Identity, IDENTITY)
        except BadRecord as error:
            raise InvalidConfig(
                f"cannot tell which machine this is: {error}",
                hint=f"restore {IDENTITY} in the state directory, or remove it to join as a new machine",
            ) from error
    if kept is not None and kept.fingerprint.same_host(host):
        nics = host.nics or kept.nics
        if nics == kept.nics:
            return kept
        identity = _identity(kept.id, Fingerprint(host.machine_id, host.product, nics))
        logger.info("noted other network cards for machine %s", identity.id)
    else:
        identity = _identity(f"{rng.getrandbits(128):032x}", host)
        if kept is not None:
            logger.warning(
                "became machine %s: the identity found here, %s, was made on another host; what belongs to it is "
                "left alone",
                identity.id,
                kept.id,
            )
        else:
            logger.info("became machine %s", identity.id)
    await local.write(IDENTITY, codec.encode(identity))
    return identity


def _identity(id: str, host: Fingerprint) -> Identity:
    return Identity(id=id, machine_id=host.machine_id, product=host.product, nics=host.nics)


def fingerprint(root: Path = Path("/")) -> Fingerprint:
    """Return this host's fingerprint, read under `root`."""
    return Fingerprint(
        machine_id=_hashed(root / "etc/machine-id"),
        product=_hashed(root / "sys/class/dmi/id/product_uuid"),
        nics=tuple(sorted({_hash(address) for address in _cards(root)})),
    )


def boot_id(root: Path = Path("/")) -> str:
    """Return what the kernel made up at this boot."""
    return (root / "proc/sys/kernel/random/boot_id").read_text().strip()


def _cards(root: Path) -> Iterable[str]:
    """Yield the hardware addresses of physical cards; where there are none (containers), of the uplink."""
    interfaces = root / "sys/class/net"
    if not interfaces.is_dir():
        return
    names = sorted(path.name for path in interfaces.iterdir())
    physical = [name for name in names if (interfaces / name / "device").exists()]
    for name in physical or _uplinks(root):
        address = _text(interfaces / name / "address")
        if address and address != "00:00:00:00:00:00":
            yield address


def _uplinks(root: Path) -> list[str]:
    """Return the interfaces of default routes (proc(5), /proc/net/route: destination and mask 0)."""
    lines = _text(root / "proc/net/route").splitlines()[1:]
    fields = [line.split() for line in lines]
    return sorted({row[0] for row in fields if len(row) > 7 and row[1] == row[7] == "00000000"})


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _hashed(path: Path) -> str:
    text = _text(path)
    return _hash(text) if text else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_address() -> str:
    """Return the address that this host would speak from to the world; loopback when it has no way there.

    Connecting a datagram socket sends nothing (192.0.2.1 is an address for documentation, RFC 5737).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return address


def versions() -> dict[str, str]:
    """Return the versions that an operator asks for first."""
    return {"agent": version("unitfleet"), "python": platform.python_version(), "kernel": platform.release()}
