"""Steps that the process driver's stories share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contract.driver_rig import DEADLINE_S, ProcessRig, is_root, shell
from harness.eventually import eventually
from unit_agent.driver import Copy
from unit_agent.drivers.process import ProcessDriver
from unitfleet.model import CopyPhase
from unitfleet.spec import Command, ServiceSpec, ServiceType

UNIT = "adserver@1.service"
SLEEP = (Command(words=("/bin/sleep", "1000")),)
needs_root = pytest.mark.skipif(not is_root(), reason="needs root")


async def up(rig: ProcessRig, service: ServiceSpec) -> tuple[ProcessDriver, Copy]:
    """Create and start the unit."""
    driver, order = rig.driver(), rig.service(UNIT, service)
    await driver.create(order)
    return driver, await driver.start(order)


async def output(driver: ProcessDriver) -> list[str]:
    return [line.text async for line in driver.logs(UNIT, lines=1000, follow=False)]


async def soon(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition of this host."""

    async def look() -> bool:
        return condition()

    await eventually(look, within_s=DEADLINE_S, what=lambda: what)


async def printed(driver: ProcessDriver, line: str) -> None:
    """Wait until the unit printed a line with this text in it."""

    async def look() -> bool:
        return any(line in text for text in await output(driver))

    await eventually(look, within_s=DEADLINE_S, what=lambda: f"{line!r} is printed")


async def ran(rig: ProcessRig, service: ServiceSpec) -> list[str]:
    """Run a oneshot to its end and return what it printed."""
    driver, copy = await up(rig, service)
    assert copy.phase is CopyPhase.FINISHED, copy
    return await output(driver)


def oneshot(script: str, **fields: object) -> ServiceSpec:
    return ServiceSpec(type=ServiceType.ONESHOT, start=shell(script), **fields)  # type: ignore[arg-type]
