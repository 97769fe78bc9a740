"""How full the file systems are that a machine's units live on."""

from __future__ import annotations

import os
from collections.abc import Iterable

from unit_agent.drivers.docker_engine import Engine
from unit_agent.resources.guard import DiskUse

ASK_S = 5.0


async def docker_root(socket: str) -> str:
    """Return where the Engine at `socket` keeps images and containers. Raises `DriverError`."""
    engine = Engine(socket)
    try:
        told = await engine.call("ask where Docker's storage is", engine.docker.system.info(), ASK_S)
    finally:
        await engine.close()
    return str(told.get("DockerRootDir") or "")


def uses(paths: Iterable[str]) -> list[DiskUse]:
    """Return the use of each file system that one of the paths is on, by the first of them. Blocks."""
    found: dict[int | str, DiskUse] = {}
    for path in paths:
        try:
            system, told = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            found.setdefault(path, DiskUse(path, None))
            continue
        used, free = told.f_blocks - told.f_bfree, told.f_bavail
        # as df reckons: what is kept for root is nobody's, a file system without a count of inodes has no end
        space = 100.0 * used / (used + free) if used + free else 0.0
        inodes = 100.0 * (told.f_files - told.f_ffree) / told.f_files if told.f_files else 0.0
        found.setdefault(system, DiskUse(path, space, inodes))
    return list(found.values())
