"""The fence of strict units: a transaction that proves, at its commit, that this machine may run them.

It compares the machine's presence and each strict placement it renews, as seen and wanted `launched`. A
keepalive or a read would not do: the store may answer them for a lease it has revoked. A strict copy starts,
and stays past its deadline, only by a renewal that was *sent* less than one TTL ago (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from unitfleet import codec, keys
from unitfleet.model import Fence
from unitfleet.store import Compare, Op, Put, unchanged


def renewal(
    machine: str, nonce: str, count: int, presence_revision: int, placements: Mapping[str, int]
) -> tuple[list[Compare], list[Op]]:
    """Return the renewal for `placements`: unit → mod revision of its strict placement, as seen wanted launched.

    When it fails, something of that has changed: list anew and renew for the rest.
    """
    compares = [unchanged(keys.presence(machine), presence_revision)]
    compares += [unchanged(keys.placement(machine, unit), seen) for unit, seen in sorted(placements.items())]
    fence = Fence(id=machine, nonce=nonce, count=count)
    return compares, [Put(keys.fence(machine), codec.encode(fence))]
