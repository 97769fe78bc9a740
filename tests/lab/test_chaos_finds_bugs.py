"""The checker checked: a promise that is broken on purpose is found on the real cluster, by the rule for it."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from chaos.broken import BUGS, faults_of, started_with
from chaos.campaign import standing
from chaos.rig import missing
from chaos.round import go
from harness.engines import Engines

pytestmark = [pytest.mark.lab]


@pytest.mark.parametrize("bug", BUGS)
async def test_the_witness_finds(bug: str) -> None:
    if reason := Engines.available() or missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with standing(Path(logs), started_as=started_with(bug)) as (rig, witness):
            where = {copy.unit: copy.machine for copy in witness.processes.now}
            result = await go(rig, witness, faults_of(bug, where.__getitem__), random.Random(1), bound_s=5.0)
    assert any(what.startswith(BUGS[bug].rule) for what in result.violations), result
