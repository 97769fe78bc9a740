"""Every operation of a master as its description has it, asked by every role: schemathesis makes the cases.

Nobody gets a 5xx, every answer is as described, and who may not ask is told so whatever is asked. First come those
who may change nothing, and the store is as before; then those who may. What takes units or the machine away comes
last: all else needs them there, as a host that can't be asked is rightly a 502. No case can name our own tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from harness.builders import a_machine
from harness.effort import examples
from harness.openapi import Asked, Got, fault, made
from harness.openapi_callers import Caller, line_fault
from harness.openapi_meant import GHOST, SERVICE, meanings
from harness.secure import SecureCluster
from unitfleet import keys
from unitfleet.model import MachineStatus, Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = examples(200, 20)
UP_S = 30.0
MOST_FAULTS = 40
"""That are told in full."""

KEPT = ("specs", "units", "tokens", "token-names", "secrets", "machine-spec", "warm", "brake", "protection")
"""Kinds of keys that only the API writes."""

TAKES_AWAY = (
    "POST /v1/scenes/{name}/rm",
    "DELETE /v1/units/{name}",
    "DELETE /fleet/v1/units/{name}",
    "POST /v1/machines/{machine}/{order}",
    "POST /v1/machines/{machine}/drain",
    "POST /v1/machines/{machine}/lost",
    "POST /v1/machines/{machine}/deny",
    "POST /v1/machines/{machine}/allow",
    "POST /v1/machines/{machine}/rm",
)
"""Operations that come last, in this order."""

ROOMY = ("--reads-per-s", "--reads-at-once", "--changes-per-s", "--changes-at-once")
FAILING = "[Service]\nExecStart=/bin/sh -c 'echo broken; exit 3'\n[X-Fleet]\nOnFailure=keep\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster() -> AsyncIterator[SecureCluster]:
    rates = [word for flag in ROOMY for word in (flag, "10000")]
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with SecureCluster.on_loopback(Path(logs), machines=1, masters=1, master_args=rates) as cluster:
            for name, text in (("web", SERVICE), ("job@", SERVICE), ("broken", FAILING)):
                cluster.write(f"{name}.service", text)
            cluster.write("nowhere.service", SERVICE + "[X-Fleet]\nMachineMetadata=rack=r99\n")
            await cluster.must("start", "--no-block", "web", "job@1", "broken", "nowhere")
            await cluster.wait_until(lambda: cluster.runs_once("web.service"), UP_S, "web.service runs")
            yield cluster


@dataclass(slots=True)
class Run:
    """Asks cases, and keeps what was wrong with the answers and how many there were of each status."""

    faults: list[str] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    _right: set[tuple[str, int, str, bytes]] = field(default_factory=set)
    """Answers that were looked at: most of those that say no say the same."""

    def ask(self, cases: Sequence[Sequence[Asked]], callers: Sequence[Caller]) -> None:
        """Have each caller ask all cases; they ask one operation at the same time."""
        with ThreadPoolExecutor(len(callers)) as threads:
            for some in cases:
                list(threads.map(lambda who, some=some: self._ask(some, who), callers))

    def _ask(self, cases: Sequence[Asked], caller: Caller) -> None:
        for asked in cases:
            try:
                got = caller.ask(asked)
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(f"{caller.name}: {asked}\n    no answer: {error!r}")
                caller.close()
                continue
            self.statuses[caller.name, got.status] += 1
            wrong = caller.bypass(asked, got.status) or self._fault(asked, got)
            if wrong is not None:
                self.faults.append(f"{caller.name}: {asked}\n    {wrong}")

    def _fault(self, asked: Asked, got: Got) -> str | None:
        headers = {name: value for name, value in got.headers.items() if name != "date"}
        answer = (asked.operation, got.status, repr(headers), got.content)
        if answer in self._right:
            return None
        wrong = line_fault(asked, got) or fault(asked, got)
        if wrong is None:
            self._right.add(answer)
        return wrong

    def verify(self, cluster: SecureCluster) -> None:
        """Fail with what was wrong."""
        kinds = {
            self.faults[-1 - at].partition("\n")[2][:60]: self.faults[-1 - at] for at in range(len(self.faults))
        }
        told = "\n".join(list(kinds.values())[:MOST_FAULTS])
        assert not self.faults, (
            f"{len(self.faults)} answers are wrong, of {self.statuses}:\n{told}\n{cluster.masters[0].tail()}"
        )


async def test_every_operation_answers_every_role_as_it_is_described(cluster: SecureCluster) -> None:
    machine = (await cluster.machine_views())["m1"].id
    tokens = {
        role: (await cluster.must("token", "create", f"a-{role}", "--role", role)).stdout.strip() for role in Role
    }
    viewer, operator, admin = (caller(cluster, role=role, token=tokens[role]) for role in Role)
    nobody, agent = caller(cluster, name="nobody"), caller(cluster, name="m1's agent", machine=machine)
    description = json.loads((await cluster.curl("/v1/openapi.json", None, token=tokens[Role.VIEWER]))[1])
    meant = meanings(machine, await cluster.token("--uses", "1000"))
    cases = await asyncio.to_thread(
        lambda: {str(some[0].operation): some for some in made(description, meant, CASES)}
    )
    last = [cases.pop(operation) for operation in TAKES_AWAY]

    run = Run()
    everybody = [nobody, viewer, operator, admin, agent]
    with contextlib.ExitStack() as connections:
        for who in everybody:
            connections.enter_context(contextlib.closing(who))
        # read meanwhile, so that whoever asks for figures gets some at once
        connections.enter_context(contextlib.closing(admin.open("/v1/figures")))
        before = await written(cluster)
        await asyncio.to_thread(run.ask, [*cases.values()], [nobody, viewer, agent])
        await asyncio.to_thread(run.ask, last, [nobody, viewer])
        run.verify(cluster)
        assert await written(cluster) == before
        await asyncio.to_thread(run.ask, [*cases.values()], [operator, admin])
        await asyncio.to_thread(run.ask, last[:3], [agent, operator, admin])
        for key, value in a_machine("ghost", id=GHOST, status=MachineStatus.LOST).pieces:
            await cluster.store.put(key, value)
        await asyncio.to_thread(run.ask, last[3:], [agent, operator, admin])
    run.verify(cluster)
    assert all(daemon.runs for daemon in cluster.masters)


def caller(
    cluster: SecureCluster, *, name: str = "", role: Role | None = None, token: str = "", machine: str = ""
) -> Caller:
    """Return who asks the first master: by a token, by the certificate of m1, or as nobody."""
    tls = cluster.client(cluster.agent_tls(cluster.machines[0]) if machine else None)
    return Caller(name or f"the {role}", cluster.endpoints[0], tls, role=role, token=token, machine=machine)


async def written(cluster: SecureCluster) -> dict[str, bytes]:
    """Return what the store has of what the API alone writes."""
    held = (await cluster.store.list(keys.PREFIX)).items
    return {item.key: item.value for item in held if keys.split(item.key)[0] in KEPT}
