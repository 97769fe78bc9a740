"""The witness of whole fleets: told of every revision and every change of a copy at the instant it happens.

Beside what `Witness` holds them to (P7, I4, epochs, uplinks):

    I1  a unit ends in one running copy                          `simulation.rest`
    I2  a strict unit never has two copies that execute, and epochs only rise
    I3  what was acknowledged stands, what was refused does not  `simulation.rest`
    I4  no copy is left without a record                         `simulation.rest`
    I5  a copy that no fault and no order concerns keeps its process
    I6  each key is written by its one writer, and what a leader writes it writes while it leads
    I7  machines are declared lost after their grace, and no faster than the brake lets them
    I8  an agent tells that a copy is gone only once it is
    I9  no program works on while time stands still              `simulation.story`
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from simulation.etcd_model import EtcdModel
from simulation.host_model import ModelHost
from simulation.witness import Witness
from simulation.world import GRACE_S
from unit_agent.driver import Copy
from unit_master.brake import HOLD_S, WINDOW_S
from unit_master.view import ClusterView
from unitfleet import codec, keys
from unitfleet.memory import MemoryStore
from unitfleet.model import BrakeOrder, CopyPhase, MachineStatus, RosterEntry
from unitfleet.store import Batch, Event, EventKind

LEADERS = ("placements", "roster", "epoch", "pins", "pending", "history", "warm-set", "sealed")
AGENTS = ("states", "machines", "resources", "images", "fence")
BY_HAND = "somebody"
"""The writer of what no program of ours writes."""

_NEVER = (-1e9, -1e9)

LAG_S = 5.0
"""How much later than we a leader may see that a machine is there, or not."""


class FleetWitness(Witness):
    """Told by the store's model and the hosts' models. `strict` names the units that must never run twice."""

    def __init__(self, store: MemoryStore, hosts: dict[str, ModelHost], strict: Collection[str]) -> None:
        super().__init__(store, dict(hosts))
        self._models = hosts
        self._strict = strict
        self._absent_at: dict[str, float] = {}
        self._former_absence: dict[str, tuple[float, float]] = {}  # when it began, and when it ended
        self._lost_at: dict[str, float] = {}
        self._fenced_at: dict[str, tuple[float, float]] = {}  # the last renewal, and the one before
        self.unanswered: dict[str, float] = {}  # machine → when a write of it was last done and not answered
        self.writes = 0

    @property
    def view(self) -> ClusterView:
        """The store as it is."""
        return self._before

    async def run(self) -> None:
        """Nothing to look for: all is told."""
        await asyncio.Event().wait()

    def store_restored(self, server: EtcdModel) -> None:
        """Begin anew from what an operator has restored: later revisions and epochs are given a second time."""
        self.was_restored = True
        self._before = ClusterView()
        self._before.apply_listing(server.history.list(keys.PREFIX))
        self._epoch = self._before.highest_epoch
        now = asyncio.get_running_loop().time()
        self._absent_at = dict.fromkeys(self._before.roster.keys() - self._before.presence.keys(), now)
        self._lost_at = {}

    # ------------------------------------------------------------------ the store

    def observed(self, batch: Batch, writer: str) -> None:
        """Look at a revision that this client has just written ("": a lease that ended)."""
        self.writes += 1
        leader = self._before.leader
        leads = leader is not None and leader.value.name == writer
        for event in batch.events:
            self._check_key(event, writer, leads)
            self._check_presence(event)
        self.take(batch)
        for event in batch.events:
            self._check_gone(event)

    def _check_key(self, event: Event, writer: str, leads: bool) -> None:
        kind, *names = keys.split(event.kv.key)
        put = event.kind is EventKind.PUT
        if writer == BY_HAND:
            return
        if not put and kind in ("machines", "resources", "images", "leader") and not writer:
            return
        if kind in LEADERS or (kind == "units" and not put) or (kind == "states" and not put):
            if not leads and not (kind == "states" and writer == names[0]) and kind != "warm-set":
                self._violated(f"I6: {writer} wrote {event.kv.key} without leading")
        elif kind in AGENTS and put and writer != names[0]:
            self._violated(f"I6: {writer} wrote {event.kv.key}")

    def _check_gone(self, event: Event) -> None:
        """I8: nothing is left of a copy that is told gone, at an epoch that is not below its own."""
        kind, *names = keys.split(event.kv.key)
        if kind != "states" or event.kind is not EventKind.PUT:
            return
        machine, unit = names
        told, copy = self._before.states_of(unit).get(machine), self._models[machine].copies.get(unit)
        if told is None or told.value.phase is not CopyPhase.GONE or copy is None or not copy.pid:
            return
        if copy.epoch <= told.value.epoch:
            self._violated(f"I8: {unit} on {machine} was told gone and has a process")

    def _check_presence(self, event: Event) -> None:
        kind, *names = keys.split(event.kv.key)
        now = asyncio.get_running_loop().time()
        if kind == "machines":
            if event.kind is EventKind.DELETE:
                self._absent_at[names[0]] = now
            else:
                if names[0] in self._absent_at:
                    self._former_absence[names[0]] = self._absent_at.pop(names[0]), now
                self._lost_at.pop(names[0], None)
        elif kind == "fence" and event.kind is EventKind.PUT:
            self._fenced_at[names[0]] = now, self._fenced_at.get(names[0], _NEVER)[0]
        elif kind == "roster" and event.kind is EventKind.DELETE:
            self._lost_at.pop(
                names[0], None
            )  # the operator's word ends it: the brake counts what is on the roster
        elif kind == "roster":
            entry = codec.decode(event.kv.value, RosterEntry)
            former = self._before.roster.get(names[0])
            newly = former is None or former.value.status is not MachineStatus.LOST
            if entry.status is MachineStatus.LOST and newly and not entry.reason.startswith("the operator"):
                self._check_loss(names[0], now)

    def _check_loss(self, machine: str, now: float) -> None:
        """I7: the grace was waited for, and the brake."""
        absent = self._absent_at.get(machine)
        if absent is None:
            self._violated(f"I7: {machine} was declared lost and is there")
            return
        began, ended = self._former_absence.get(machine, _NEVER)
        heard_of_return = now - ended >= LAG_S
        if now - (absent if heard_of_return else began) < GRACE_S:
            self._violated(f"I7: {machine} was declared lost {now - absent:.2f} s after it went")
        brake = self._before.brake
        recent = [name for name, at in self._lost_at.items() if now - at < WINDOW_S - LAG_S]
        self._lost_at[machine] = now
        if brake is not None and brake.value.order is BrakeOrder.RELEASE:
            return
        count = len(recent) + 1
        known = len(self._before.roster)
        latest = max(self._absent_at.get(name, 0.0) for name in (*recent, machine))
        if count >= 2 and count > known / 3 and now - latest < HOLD_S - LAG_S:
            self._violated(f"I7: {count} of {known} machines were declared lost within {WINDOW_S:g} s")

    # ------------------------------------------------------------------ the hosts

    def copy_changed(self, machine: str, before: Copy, after: Copy, by_misfortune: bool) -> None:
        """Look at a change of a copy, at its instant."""
        unit = after.unit
        if after.pid and not before.pid and unit in self._strict:
            for other, host in self._models.items():
                if other != machine and unit in host.running():
                    self._violated(f"I2: {unit} runs on {other} and was started on {machine}")
        if by_misfortune:
            return
        if after.phase is CopyPhase.STOPPING and before.phase is not CopyPhase.STOPPING:
            if not self.ordered_to_end(machine, unit, before) and not self._fenced_off(machine, unit):
                self._violated(f"P7: {unit} was stopped on {machine} without an order to")
        elif before.pid and after.pid != before.pid and before.phase is not CopyPhase.STOPPING:
            ends = self._models[machine].behaviour(unit).run_s is not None
            if not ends and not self._fenced_off(machine, unit):
                self._violated(f"I5: {unit} lost its process on {machine} by nobody's order")

    def _fenced_off(self, machine: str, unit: str) -> bool:
        """Whether a strict copy may stop for want of a renewal.

        While all is well one is committed every quarter of a lease's time; an answer may have been lost.
        """
        entry = self._before.roster.get(machine)
        ttl_s = entry.value.ttl_s if entry is not None else 0.0
        now = asyncio.get_running_loop().time()
        late = now - self._fenced_at.get(machine, _NEVER)[1] > 0.6 * ttl_s
        unanswered = now - self.unanswered.get(machine, -1e9) < 2 * ttl_s
        return unit in self._strict and (late or unanswered)
