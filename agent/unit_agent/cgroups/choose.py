"""Which reader this host needs: v2 where its one hierarchy counts CPU and memory, else v1."""

from __future__ import annotations

import logging
from pathlib import Path

from unit_agent.cgroups.places import UNIFIED, controls, hierarchies
from unit_agent.cgroups.reader import CgroupReader
from unit_agent.cgroups.v1 import V1Reader
from unit_agent.cgroups.v2 import V2Reader

logger = logging.getLogger(__name__)


def reader(proc: Path = Path("/proc"), *, cgroupspy: bool = False) -> CgroupReader | None:
    """Return this host's reader, None where no groups are mounted. `cgroupspy`: by it, where that reads right."""
    mounted = hierarchies(proc)
    unified = mounted.pop(UNIFIED, None)
    if unified is not None and controls(unified):
        return V2Reader(unified, proc)
    if not mounted:
        return None
    if cgroupspy:
        try:
            from unit_agent.cgroups.spy import SpyReader
        except ImportError:
            logger.warning("read control groups directly: the package cgroupspy is not installed")
        else:
            return SpyReader(mounted, proc)
    return V1Reader(mounted, proc)
