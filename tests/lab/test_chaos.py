"""Thirty faults on a real cluster: 3 members of etcd, 3 masters, 5 hosts with an Engine each, seen from outside.

Every kind at least once, some beside another. `scripts/chaos` lets more of them happen.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from chaos.campaign import standing
from chaos.faults.drawing import every_kind
from chaos.faults.fault import Fault
from chaos.rig import GRACE_S, TTL_S, Rig, missing
from chaos.round import go
from chaos.witness.witness import Witness
from harness.engines import Engines

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

SEED = 1
ROUNDS = every_kind(SEED, 30, at_most_s=TTL_S + GRACE_S + 1.5)


class Stand:
    """A rig for many rounds, and another one after a round that spoiled it."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._stack = contextlib.AsyncExitStack()
        self._standing: tuple[Rig, Witness] | None = None

    async def whole(self) -> tuple[Rig, Witness]:
        """Return a rig on which all is right."""
        if self._standing is None:
            logs = Path(tempfile.mkdtemp(dir=self._logs))
            self._standing = await self._stack.enter_async_context(standing(logs))
        return self._standing

    async def leave(self) -> None:
        """End it."""
        self._standing = None
        await self._stack.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stand() -> AsyncIterator[Stand]:
    if reason := Engines.available() or missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        stand = Stand(Path(logs))
        yield stand
        await stand.leave()


def _name(faults: list[Fault]) -> str:
    return "+".join(fault.kind for fault in faults)


@pytest.mark.parametrize("faults", ROUNDS, ids=_name)
async def test_every_promise_holds_through(stand: Stand, faults: list[Fault]) -> None:
    rig, witness = await stand.whole()
    result = await go(rig, witness, faults, random.Random(f"{SEED}/{_name(faults)}"))
    if not result.held:
        told = "\n".join([*map(repr, faults), *result.violations, *rig.workload.told, await rig.cluster.report()])
        await stand.leave()
        pytest.fail(told)


async def test_a_secret_was_written_nowhere_through_all_of_it(stand: Stand) -> None:
    _, witness = await stand.whole()
    assert await witness.closing() == []
