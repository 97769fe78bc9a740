"""What an outside observer checks: the history of the store, revision by revision, and what runs on each host.

It trusts no status of ours. `violations` collects what broke a promise, with the time.
"""

from __future__ import annotations

import asyncio

import msgspec

from unit_agent.driver import Copy
from unit_agent.drivers.fake import FakeHost
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import CopyPhase, Happening, Placement, TargetState, Wanted
from unitfleet.store import Batch, Event, EventKind

LOOK_S = 0.05
UPLINK = 10**9


class Witness:
    """Follows store and hosts; see `docs/architecture.md` for the promises it holds them to."""

    def __init__(self, store: MemoryStore, hosts: dict[str, FakeHost]) -> None:
        self._store = store
        self._hosts = hosts
        self._before = ClusterView()
        self._epoch = 0
        self._orders: dict[tuple[str, str], list[Placement]] = {}
        self._running: dict[str, dict[str, Copy]] = {name: {} for name in hosts}
        self._excused: set[tuple[str, str]] = set()
        self.was_restored = False  # from an old snapshot
        self.violations: list[str] = []

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="witness the store")
            tasks.create_task(self._look(), name="witness the hosts")

    def power_fails(self, machine: str) -> None:
        """Excuse every copy of a host that is about to lose power."""
        self._excused.update((machine, unit) for unit in self._hosts[machine].running())

    def crashes(self, machine: str, unit: str) -> None:
        """Excuse one copy that is about to crash."""
        self._excused.add((machine, unit))

    def _violated(self, promise: str) -> None:
        self.violations.append(f"{asyncio.get_running_loop().time():7.2f} {promise}")

    # ------------------------------------------------------------------ the store

    async def _follow(self) -> None:
        async for batch in self._store.watch(keys.PREFIX, start_revision=1):
            self.take(batch)

    def take(self, batch: Batch) -> None:
        """Look at one revision of the store."""
        for event in batch.events:
            self._check(event)
        self._check_writer(batch)
        self._before.apply_batch(batch)
        for machine in {keys.split(event.kv.key)[1] for event in batch.events if _is_order(event)}:
            self._check_uplink(machine)

    def _check_writer(self, batch: Batch) -> None:
        """I1: what a leader writes, it writes while it leads."""
        for event in batch.events:
            if event.kind is EventKind.PUT and keys.split(event.kv.key)[0] == "events":
                writer = codec.decode(event.kv.value, Happening).writer
                leader = self._before.leader
                if writer.startswith("master-") and (
                    leader is None or writer != f"master-{leader.value.nonce[:8]}"
                ):
                    self._violated(f"I1: {writer} wrote at revision {batch.revision} without leading")

    def _check(self, event: Event) -> None:
        kind, *names = keys.split(event.kv.key)
        if kind != "placements" or event.kind is not EventKind.PUT:
            return
        machine, unit = names
        placement = codec.decode(event.kv.value, Placement)
        former = self._before.placements_of(unit).get(machine)
        self._orders.setdefault((machine, unit), []).append(placement)
        if former is not None and former.value.epoch == placement.epoch:
            self._check_amendment(former.value, placement)
        elif placement.epoch <= self._epoch:
            self._violated(f"epoch {placement.epoch} of {unit} is not above {self._epoch}")
        self._epoch = max(self._epoch, placement.epoch)
        again = self.was_restored and placement.wanted is Wanted.GONE  # above the epoch of a copy it had lost
        if former is not None and former.value.wanted is Wanted.GONE and not again:
            self._violated(f"a gone placement of {unit} on {machine} was rewritten")
        if placement.wanted is Wanted.GONE and former is not None:
            self._check_break(unit, machine, former.value)

    def _check_amendment(self, former: Placement, placement: Placement) -> None:
        """A placement is written again at its own epoch for its bandwidth alone, and never once it is `gone`."""
        if msgspec.structs.replace(placement, bandwidth=former.bandwidth) != former:
            self._violated(f"{placement.unit} was ordered otherwise at the same epoch {placement.epoch}")

    def _check_uplink(self, machine: str) -> None:
        """Guarantees on a machine, leaving copies' too, never exceed its uplink."""
        held = [
            self._before.placements_of(unit)[machine].value for unit in self._before.on_machine.get(machine, ())
        ]
        guaranteed = sum(each.bandwidth.egress for each in held if each.bandwidth is not None)
        if guaranteed > UPLINK:
            self._violated(f"{guaranteed} bit/s are guaranteed on {machine}, its uplink has {UPLINK}")

    def _check_break(self, unit: str, machine: str, former: Placement) -> None:
        """I4: a wanted copy is told to go only when a newer one runs."""
        wish = self._before.units.get(unit)
        if wish is None or wish.value.target is not TargetState.LAUNCHED or former.wanted is not Wanted.LAUNCHED:
            return
        spec = self._before.spec(unit, wish.value.spec)
        if wish.value.incarnation != former.incarnation or spec is None:
            return
        if spec.requirements.is_global or spec.requirements.strict:  # a strict unit breaks before it makes
            return
        state = self._before.states_of(unit).get(machine)
        if state is not None and state.value.phase in (CopyPhase.FAILED, CopyPhase.FINISHED, CopyPhase.GONE):
            return
        for other, entry in self._before.placements_of(unit).items():
            report = self._before.states_of(unit).get(other)
            if (
                other != machine
                and entry.value.epoch > former.epoch
                and report is not None
                and report.value.epoch == entry.value.epoch
                and report.value.phase in (CopyPhase.RUNNING, CopyPhase.FINISHED)  # a oneshot is done there
            ):
                return
        self._violated(f"I4: {unit} was ordered gone from {machine} and no newer copy runs")

    # ------------------------------------------------------------------ the hosts

    async def _look(self) -> None:
        while True:
            for name, host in self._hosts.items():
                present = {unit: copy for unit, copy in host.copies.items() if copy.pid}
                for unit, copy in self._running[name].items():
                    after = host.copies.get(unit)
                    if after is None or not after.executing:
                        self._ended(name, unit, copy)
                self._running[name] = present
            await asyncio.sleep(LOOK_S)

    def _ended(self, machine: str, unit: str, copy: Copy) -> None:
        """P7, I4: a copy ends by its own fault, or by an order that is not older than it is."""
        if (machine, unit) in self._excused:
            self._excused.discard((machine, unit))
        elif not self.ordered_to_end(machine, unit, copy):
            self._violated(f"P7: {unit} was stopped on {machine} without an order to")

    def ordered_to_end(self, machine: str, unit: str, copy: Copy) -> bool:
        """Whether an order stood, ever, that lets this copy be stopped."""
        for order in self._orders.get((machine, unit), ()):
            changed = (order.spec, order.incarnation) != (
                copy.spec,
                copy.incarnation,
            ) or order.restart > copy.restart
            if order.epoch >= copy.epoch and (order.wanted is not Wanted.LAUNCHED or changed):
                return True
        return False


def _is_order(event: Event) -> bool:
    return event.kind is EventKind.PUT and keys.split(event.kv.key)[0] == "placements"
