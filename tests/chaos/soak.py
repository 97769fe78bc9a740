"""A soak: faults at a steady pace for long, while memory, open files and etcd are measured: all stay flat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.campaign import revision, standing
from chaos.faults.drawing import draw
from chaos.faults.fault import KINDS
from chaos.rig import GRACE_S, TTL_S, Rig
from chaos.round import go
from chaos.witness.daemons import sizes
from chaos.witness.witness import Witness

SAMPLE_S = 5.0
WARM_UP = 0.25
"""Share of the time that is left out of the slopes: caches fill, the first restarts happen."""

RSS_MIB_PER_HOUR = 24.0
"""A daemon may grow by so much: over half an hour that is what the allocator of Python wanders."""

FILES_PER_HOUR = 20.0
RSS_MIB, FILES = 4.0, 8.0
"""And it has to have grown by so much in all: the slope of a short time says little."""

ETCD_MIB = 20.0

QUIET = ("old-snapshot", "no-space", "cloned")
"""Kinds that are left out: they change by design what is measured."""


@dataclass(slots=True)
class Series:
    """What one thing measured over time: (seconds, value), anew whenever the process is another one."""

    points: list[tuple[float, float]] = field(default_factory=list)

    def slope_per_hour(self) -> float:
        """Return the slope of the straight line through the points, by least squares."""
        count = len(self.points)
        if count < 3:
            return 0.0
        at = sum(x for x, _ in self.points) / count
        mean = sum(y for _, y in self.points) / count
        square = sum((x - at) ** 2 for x, _ in self.points)
        return 3600.0 * sum((x - at) * (y - mean) for x, y in self.points) / square if square else 0.0

    def grown(self) -> float:
        """Return by how much the straight line rises from the first point to the last."""
        return self.slope_per_hour() * _spans_s(self.points) / 3600.0


class Soak:
    """Runs faults for `minutes`, `per_minute` of them where they settle as soon; a line a sample and a fault."""

    def __init__(self, *, minutes: float, per_minute: float, seed: int) -> None:
        self._lasts_s = 60.0 * minutes
        self._every_s = 60.0 / per_minute
        self._seed = seed
        self._kinds = [name for name in KINDS if name not in QUIET]
        self.samples: list[dict[str, Any]] = []
        self._violations: list[str] = []
        self._faults = 0

    async def run(self) -> bool:
        """Return whether everything held and stayed flat."""
        with tempfile.TemporaryDirectory(prefix="uf-soak-") as logs:
            async with standing(Path(logs)) as (rig, witness):
                self._began = time.monotonic()
                sampling = asyncio.create_task(self._sample(rig, witness), name="sample")
                try:
                    await self._suffer(rig, witness)
                finally:
                    sampling.cancel()
                    await asyncio.gather(sampling, return_exceptions=True)
                self._violations += await witness.closing()
        flat = self.slopes()
        self._violations += flat.pop("steep")
        self._tell(
            {
                "soak": "verdict",
                "revision": revision(),
                "faults": self._faults,
                **flat,
                "violations": self._violations,
            }
        )
        return not self._violations

    async def _suffer(self, rig: Rig, witness: Witness) -> None:
        while (at := time.monotonic() - self._began) < self._lasts_s:
            faults = draw(self._seed, self._faults, self._kinds, pairs=0.0)
            for fault in faults:
                fault.lasts_s = min(fault.lasts_s, TTL_S + GRACE_S + 2.0)
            result = await go(rig, witness, faults, random.Random(f"{self._seed}/soak/{self._faults}"))
            self._faults += 1
            kinds = [f"{fault.kind} {fault.target}" for fault in faults]
            self._tell(
                {
                    "soak": "fault",
                    "at_s": round(at, 1),
                    "kinds": kinds,
                    "settled_s": result.settled_s,
                    "violations": result.violations,
                }
            )
            self._violations += result.violations
            if result.settled_s < 0:
                return  # what never became right says nothing about slopes
            await asyncio.sleep(max(0.0, self._every_s - (time.monotonic() - self._began - at)))

    async def _sample(self, rig: Rig, witness: Witness) -> None:
        written = witness.history.written
        while True:
            await asyncio.sleep(SAMPLE_S)
            store = 0.0
            with contextlib.suppress(Exception):  # a member is away, by the fault of this moment
                store = max(member.db_size for member in await rig.cluster.store.members()) / 2**20
            found = {
                "soak": "sample",
                "at_s": round(time.monotonic() - self._began, 1),
                "daemons": {
                    name: {"pid": pid, "rss_mib": size.rss_mib, "files": size.files}
                    for name, size in sizes(rig.daemons).items()
                    if (pid := next(each.pid for each in rig.daemons if each.name == name))
                },
                "etcd_mib": round(store, 2),
                "writes_per_s": round((witness.history.written - written) / SAMPLE_S, 1),
            }
            written = witness.history.written
            self.samples.append(found)
            self._tell(found)

    def slopes(self) -> dict[str, Any]:
        """Return what the samples came to; `steep`: what is not flat."""
        kept = [sample for sample in self.samples if sample["at_s"] >= WARM_UP * self._lasts_s]
        rss: dict[tuple[str, int], Series] = defaultdict(Series)
        files: dict[tuple[str, int], Series] = defaultdict(Series)
        for sample in kept:
            for name, size in sample["daemons"].items():
                rss[name, size["pid"]].points.append((sample["at_s"], size["rss_mib"]))
                files[name, size["pid"]].points.append((sample["at_s"], float(size["files"])))
        long = [key for key, series in rss.items() if _spans_s(series.points) >= 0.3 * self._lasts_s]
        found = {name: round(rss[name, pid].slope_per_hour(), 1) for name, pid in long}
        opened = {name: round(files[name, pid].slope_per_hour(), 1) for name, pid in long}
        store = [sample["etcd_mib"] for sample in kept if sample["etcd_mib"]]
        writes = sorted(sample["writes_per_s"] for sample in kept)
        steep = [
            f"I10: {name} grows by {found[name]:g} MiB/h"
            for name, pid in long
            if found[name] > RSS_MIB_PER_HOUR and rss[name, pid].grown() > RSS_MIB
        ]
        steep += [
            f"I10: {name} opens {opened[name]:g} files/h"
            for name, pid in long
            if opened[name] > FILES_PER_HOUR and files[name, pid].grown() > FILES
        ]
        if store and max(store) > ETCD_MIB:
            steep.append(f"I10: etcd's database grew to {max(store):g} MiB")
        return {
            "rss_mib_per_hour": found,
            "files_per_hour": opened,
            "etcd_mib": [store[0], store[-1]] if store else [],
            "writes_per_s_median": writes[len(writes) // 2] if writes else 0.0,
            "steep": steep,
        }

    def _tell(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)
        if line["soak"] != "sample":
            print(json.dumps(line), file=sys.stderr, flush=True)


def _spans_s(points: Sequence[tuple[float, float]]) -> float:
    return points[-1][0] - points[0][0] if points else 0.0
