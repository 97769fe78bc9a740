"""What the leader does about units: the placement protocol's leader half, as a pure function of the view.

The rules are those of docs/architecture.md ("The placement protocol"): make before break; `gone` and its
acknowledgement end every stay; a `gone` placement is never rewritten; each create is a new incarnation; an
orphan is answered with `gone`; what should leave but has nowhere to go stays, and takes restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from unit_master import amendments, retries
from unit_master.actions import (
    Acknowledged,
    Amend,
    DeleteUnit,
    DropState,
    Evict,
    Gone,
    Pend,
    PinImage,
    Place,
    UnitAction,
    Unpend,
    Want,
)
from unit_master.advice import nearest_fix
from unit_master.eviction import EVICTED, evictable, evicted, make_room
from unit_master.newcomers import first_place
from unit_master.order import in_order, names_of, unreadable_placements
from unit_master.ranking import choose
from unit_master.rest import is_at_rest
from unit_master.rules import unsuitable
from unit_master.scene import Scene, scene_of
from unit_master.scheduler import Refused, fits, pending_of
from unit_master.view import ClusterView, Entry
from unitfleet import keys
from unitfleet.bandwidth import asked
from unitfleet.model import (
    CopyPhase,
    MachineStatus,
    OnLoss,
    Pending,
    Placement,
    Requirements,
    TargetState,
    Unit,
    UnitState,
    Wanted,
)
from unitfleet.spec import UnitSpec

_EXECUTING = (
    CopyPhase.STARTING,
    CopyPhase.RUNNING,
    CopyPhase.STOPPING,
    CopyPhase.RESTARTING,
)

_FORGOTTEN = "its copy is of a later order, which the store has lost"
_ORDERED_ANEW = "runs there, and its order could not be read"


def plan_units(
    view: ClusterView, now: float, names: Iterable[str] | None = None, scene: Scene | None = None
) -> list[UnitAction]:
    """Return every action that `view` calls for, in an order in which they may be carried out.

    With `names`, only about these units, in this order. `scene` spares making that of `view`; actions are drafted
    on it.

    Decisions of one pass see each other through the scene: two units in conflict are never both placed on a
    machine. Peers are decided before those that follow them (MachineOf).
    """
    scene = scene_of(view) if scene is None else scene
    ordered = in_order(view, names_of(view)) if names is None else list(names)
    actions: list[UnitAction] = list(_pins(view, ordered))
    unreadable = unreadable_placements(view)
    spoken: set[str] = set()  # units about which something was decided in this pass
    resting = {name for name in ordered if is_at_rest(view, scene, name)}
    stirred = [name for name in ordered if name not in resting]
    while stirred:
        seen = len(scene.touched)
        for name in stirred:
            if name in spoken:
                continue  # evicted: what becomes of it is decided once that stands in the store
            if (first := first_place(view, scene, name)) is not None:
                decided: list[UnitAction] = [first]
            else:
                plan = _Plan(view, scene, name, now, unreadable.get(name, frozenset()), spoken)
                decided = list(plan.actions())
            actions += decided
            if decided:
                spoken.add(name)
        stirred = in_order(view, _stirred(view, scene, resting, scene.touched[seen:]))
        resting.difference_update(stirred)
    return actions


def _stirred(view: ClusterView, scene: Scene, resting: set[str], machines: Iterable[str]) -> set[str]:
    """Return those that were at rest and are no more, for what came to their machines."""
    return {
        name
        for machine in dict.fromkeys(machines)
        for name in scene.hosts[machine].units
        if name in resting and not is_at_rest(view, scene, name)
    }


def _pins(view: ClusterView, names: Iterable[str]) -> Iterator[UnitAction]:
    """Pin the first digest that an agent reports for a spec: later placements run the same bytes."""
    pinned = set(view.pins)
    told = (name for name in names if any(state.value.image for state in view.states_of(name).values()))
    for name in sorted(told):
        for machine, state in sorted(view.states_of(name).items()):
            placement = view.placements_of(name).get(machine)
            spec = state.value.spec
            if state.value.image and spec not in pinned and placement and placement.value.spec == spec:
                pinned.add(spec)
                yield PinImage(spec, state.value.image)


class _Plan:
    """The plan of one unit. Every method yields actions and drafts them on the scene."""

    def __init__(
        self,
        view: ClusterView,
        scene: Scene,
        name: str,
        now: float,
        unreadable: frozenset[str],
        spoken: set[str],
    ) -> None:
        self.view = view
        self.scene = scene
        self.name = name
        self.now = now
        self.unreadable = unreadable
        self.spoken = spoken
        self.placements = dict(view.placements_of(name))
        self.states = view.states_of(name)
        self.asked: str | None = None  # why it is pending, once that was said in this pass

    def actions(self) -> Iterator[UnitAction]:
        if keys.unit(self.name) in self.view.bad:
            return  # its record can't be read: absence of information stops nothing
        self.scene.unpromise(self.name)
        entry = self.view.units.get(self.name)
        unit = entry.value if entry else None
        acknowledged = list(self._acknowledged())
        if acknowledged:
            yield from acknowledged  # the rest is decided once the store has forgotten them
            return
        if unit is None:
            yield from self._orphans(None, None)
            if self.name in self.view.pending:
                yield Unpend(self.name)
            return
        spec = self.view.spec(unit.name, unit.spec)
        if unit.target in (TargetState.DESTROYED, TargetState.INACTIVE):
            yield from self._end(unit)
            yield from self._orphans(unit, None)
        elif spec is None:
            yield from self._pend(
                Pending(unit=self.name, considered=0, message=self._unreadable(unit), since=self.now)
            )
        else:
            yield from self._run(unit, spec, asked(spec.requirements, unit.bandwidth))
        if self.asked is None and self.name in self.view.pending:
            yield Unpend(self.name)

    def _run(self, unit: Unit, spec: UnitSpec, needs: Requirements) -> Iterator[UnitAction]:
        """Place it, or see to it that it is as wanted where it is; `needs` has what `net limit` set."""
        renewed = set()
        if needs.is_global:
            steps = self._everywhere(unit, needs)
        else:
            yield from self._other_incarnations(unit)
            if needs.strict:
                yield from self._before_it_was_strict()
            steps = self._somewhere(unit, needs)
        for action in steps:
            if isinstance(action, Place | Want):
                renewed.add(action.machine)
            yield action
        for machine in self._live():
            if machine not in renewed:
                yield from self._amend(unit, spec, needs, machine)

    def _unreadable(self, unit: Unit) -> str:
        return f"cannot read its unit file: {self.view.unreadable(unit.name, unit.spec)}"

    # ------------------------------------------------------------------ what was said and done

    def _acknowledged(self) -> Iterator[UnitAction]:
        for machine, entry in sorted(self.placements.items()):
            if entry.value.wanted is not Wanted.GONE:
                continue
            state = self.states.get(machine)
            told = (
                state is not None
                and state.value.phase is CopyPhase.GONE
                and state.value.epoch == entry.value.epoch
            )
            if told or self._unknown(machine):
                yield Acknowledged(self.name, machine)
                del self.placements[machine]
                self.scene.clear(self.name, machine)
            elif state is not None and state.value.phase is not CopyPhase.GONE and self._forgotten(entry.value):
                yield Gone(self.name, machine, _FORGOTTEN)

    def _orphans(self, unit: Unit | None, place_of: Entry[Placement] | None) -> Iterator[UnitAction]:
        """Answer states without a placement: sentence 2 of the protocol."""
        newer_runs = place_of is not None and self._runs(place_of.value)
        for machine, state in sorted(self.states.items()):
            if machine in self.view.placements_of(self.name):
                continue
            unwanted = unit is None or unit.target is not TargetState.LAUNCHED or newer_runs
            yield from self._orphan(machine, state.value, unwanted)

    def _orphan(self, machine: str, state: UnitState, unwanted: bool) -> Iterator[UnitAction]:
        if state.phase not in _EXECUTING or self._unknown(machine):
            yield DropState(self.name, machine)  # an agent that joins reports anew what it holds
        elif unwanted:
            yield Gone(self.name, machine, "runs without a placement")

    # ------------------------------------------------------------------ not to run

    def _end(self, unit: Unit) -> Iterator[UnitAction]:
        live = self._live()
        for machine in live:
            yield self._gone(machine, f"target state {unit.target}")
        # only once the orders stand in the store: a deletion that lands without them would lose a copy
        if unit.target is TargetState.DESTROYED and not live and not any(map(self._ready, self.placements)):
            yield DeleteUnit(self.name)

    def _other_incarnations(self, unit: Unit) -> Iterator[UnitAction]:
        for machine in self._live():
            if self.placements[machine].value.incarnation != unit.incarnation:
                yield self._gone(machine, "another unit of the same name, destroyed since")

    def _before_it_was_strict(self) -> Iterator[UnitAction]:
        """End every copy of an ordinary text first: no deadline ends it, so a new order in place proves nothing.

        Its agent may never hear of that order, and amid a move there are two.
        """
        for machine in self._live():
            if self._is_ordinary(self.placements[machine].value):
                yield self._gone(machine, "its copy is from before the unit was strict")

    # ------------------------------------------------------------------ one place

    def _somewhere(self, unit: Unit, needs: Requirements) -> Iterator[UnitAction]:
        wanted = Wanted.LAUNCHED if unit.target is TargetState.LAUNCHED else Wanted.LOADED
        new = self._newest()
        if new is None and (found := self._found_running()):
            yield Place(self.name, found[0], wanted, _ORDERED_ANEW, "")
            self.scene.settle(needs, found[0])
            return
        why = "not placed yet" if new is None else self._must_leave(unit, needs, new)
        if why is not None:
            yield from self._leave(unit, needs, wanted, new, why)
        elif new is not None:
            yield from self._settle(unit, needs, wanted, new)
        yield from self._orphans(unit, self.view.placements_of(self.name).get(new) if new else None)

    def _must_leave(self, unit: Unit, needs: Requirements, machine: str) -> str | None:
        """Return why the unit's place can't stay its place, or None."""
        host = self.scene.hosts.get(machine)
        name = self.view.machine_name(machine)
        placement = self.placements[machine].value
        if self._done(unit, placement):
            return None
        if host is None or host.status is MachineStatus.LOST:
            return f"{name} is lost"
        if host.drained:
            return f"{name} is drained"
        if host.status is MachineStatus.SUSPECT:
            return None
        reason = unsuitable(needs, host, self.scene)
        if reason is None and placement.spec != unit.spec:
            refusal = fits(needs, host, self.scene)
            if refusal is not None and refusal.rule in ("ports", "resources", "driver", "policy"):
                reason = refusal.why
        return f"{name} does not suit it any more: {reason}" if reason is not None else None

    def _done(self, unit: Unit, placement: Placement) -> bool:
        """Whether it is a oneshot that finished as wanted: it is not run again after its host is lost."""
        state = self.states.get(placement.machine)
        return (
            state is not None
            and state.value.phase is CopyPhase.FINISHED
            and state.value.epoch == placement.epoch
            and placement.restart >= unit.restart
            and placement.spec == unit.spec
        )

    def _leave(
        self, unit: Unit, needs: Requirements, wanted: Wanted, new: str | None, why: str
    ) -> Iterator[UnitAction]:
        waits = self._waits_for_its_machine(needs, new)
        if waits is not None:
            yield from self._pend(Pending(unit=self.name, considered=0, message=waits, since=self.now))
            return
        if needs.strict and (waits := self._waits_for_its_end()):
            yield from self._pend(Pending(unit=self.name, considered=0, message=waits, since=self.now))
            return
        decided = choose(needs, self.scene, but=() if new is None else (new,))
        if isinstance(decided, Refused):
            yield from self._stays(unit, needs, wanted, new)
            yield from self._wait_for_room(needs, wanted, decided, new)
            return
        if needs.strict and new is not None:
            yield self._gone(new, why)  # break before make: never two
            return
        moved_from, why = (evicted(self.view, self.name) or ("", "")) if new is None else (new, why)
        reason = f"{why}; {decided.reason}" if why else decided.reason
        yield Place(self.name, decided.machine, wanted, reason, moved_from)
        self.scene.settle(needs, decided.machine)

    def _wait_for_room(
        self, needs: Requirements, wanted: Wanted, refused: Refused, new: str | None
    ) -> Iterator[UnitAction]:
        """Say why it is not placed, and evict units of a lower priority if it will fit then.

        It is placed once they are acknowledged to be gone: until then they keep what they hold (sentence 2), and
        what they leave is promised to it.
        """
        pending = pending_of(refused, self.name, self.now)
        room = None
        if needs.priority and wanted is Wanted.LAUNCHED:
            may_go = evictable(self.view, self.spoken)
            room = make_room(needs, self.scene, may_go, but=() if new is None else (new,))
        if room is not None:
            name = self.view.machine_name(room.machine)
            for other in room.units:
                yield Evict(other, room.machine, f"{EVICTED}{name} by {self.name} (priority {needs.priority})")
                self.scene.leave(other, room.machine)
                self.spoken.add(other)
            self.scene.promise(needs, room.machine)
            leaving = ", ".join(sorted(self.scene.hosts[room.machine].leaving))
            why = f"waits until {leaving} has left {name}, which makes room for its priority of {needs.priority}"
            pending = msgspec.structs.replace(pending, message=why, hint="")
        elif (former := evicted(self.view, self.name)) is not None:
            pending = msgspec.structs.replace(pending, message=f"{former[1]}; {pending.message}")
        yield from self._pend(pending)

    def _waits_for_its_end(self) -> str:
        """Return what a strict unit waits for before it may be placed anew, or "": never two copies.

        A copy from before it was strict has no deadline: what became of it on a lost machine nobody can tell.
        """
        for machine, entry in sorted(self.placements.items()):
            if self._ready(machine) and entry.value.wanted is Wanted.GONE:
                return "waits until its former copy has surely ended"
            if not self._ready(machine) and self._is_ordinary(entry.value):
                name = self.view.machine_name(machine)
                return (
                    f"waits for {name}, which is lost: the copy there is from before the unit was strict and may "
                    f"run on; when {name} is off for good, unitctl machines rm {name}"
                )
        return ""

    def _waits_for_its_machine(self, needs: Requirements, machine: str | None) -> str | None:
        if machine is None or needs.on_loss is not OnLoss.WAIT:
            return None
        entry = self.view.roster.get(machine)
        if entry is None or entry.value.status is not MachineStatus.LOST:
            return None
        name = self.view.machine_name(machine)
        if needs.on_loss_after_s is None:
            return f"waits for {name}, which is lost (OnMachineLoss=wait)"
        remaining = entry.value.since + needs.on_loss_after_s - self.now
        if remaining <= 0:
            return None
        return f"waits for {name}, which is lost, and moves when {needs.on_loss_after_s:g} s are over"

    def _stays(self, unit: Unit, needs: Requirements, wanted: Wanted, new: str | None) -> Iterator[UnitAction]:
        """Sentence 7: with nowhere to go, the newest live placement on a ready machine is its place.

        There it takes restarts and stops, but no new text: that asks for another machine. Once it runs there, or
        is not to run, older copies go as after any move: what should leave is no reason for two.
        """
        ready = [(self.placements[m].value.epoch, m) for m in self._live() if self._ready(m)]
        if not ready:
            return
        _, machine = max(ready)
        held = self.placements[machine].value
        stops = wanted is Wanted.LOADED and held.wanted is Wanted.LAUNCHED
        same_text = held.spec == unit.spec
        if stops or (same_text and (machine != new or held.restart < unit.restart or held.wanted is not wanted)):
            yield Want(self.name, machine, wanted, "has nowhere else to go")
            self.scene.settle(needs, machine)
        elif machine == new and (wanted is Wanted.LOADED or self._runs(held)):
            yield from self._others_go(machine)

    def _settle(self, unit: Unit, needs: Requirements, wanted: Wanted, machine: str) -> Iterator[UnitAction]:
        held = self.placements[machine].value
        changed = _changed(unit, held, wanted) or (_FORGOTTEN if self._forgotten(held) else None)
        if changed is not None:
            yield Want(self.name, machine, wanted, changed)
            self.scene.settle(needs, machine)
            return
        if wanted is Wanted.LOADED or self._runs(held) or self._done(unit, held):
            yield from self._others_go(machine)
        elif self._failed(held):
            for other in self._live():
                if other != machine and self._has_ended(other):
                    yield self._gone(other, f"placed on {self.view.machine_name(machine)}")
            yield from self._try_elsewhere(unit, needs, held)

    def _try_elsewhere(self, unit: Unit, needs: Requirements, held: Placement) -> Iterator[UnitAction]:
        """Make the machine its place that runs it after all, or let another one try what failed here for good.

        As with any move the new placement is made first; the failed copy goes once the new one runs, or fails.
        """
        state = self._state_of(held)
        if not retries.keeps_failing(needs, held, state):
            return
        why = retries.in_words(self.view.machine_name(held.machine), state)
        for other in self._live():
            former = self.placements[other].value
            if other != held.machine and self._runs(former) and _changed(unit, former, held.wanted) is None:
                yield Want(self.name, other, held.wanted, f"runs there; {why}")
                self.scene.settle(needs, other)
                return
        decided = retries.elsewhere(needs, held, state, self.scene)
        if decided is not None:
            reason = f"{why}; {decided.reason}"
            yield Place(self.name, decided.machine, held.wanted, reason, held.machine, tried=retries.tried(held))
            self.scene.settle(needs, decided.machine)

    def _others_go(self, machine: str) -> Iterator[UnitAction]:
        for other in self._live():
            if other != machine:
                yield self._gone(other, f"runs on {self.view.machine_name(machine)}")

    # ------------------------------------------------------------------ one place on every machine

    def _everywhere(self, unit: Unit, needs: Requirements) -> Iterator[UnitAction]:
        wanted = Wanted.LAUNCHED if unit.target is TargetState.LAUNCHED else Wanted.LOADED
        refusals = []
        for machine, host in sorted(self.scene.hosts.items()):
            entry = self.placements.get(machine)
            if entry is not None:
                held = entry.value
                reason = unsuitable(needs, host, self.scene) if host.status is MachineStatus.READY else None
                if held.wanted is Wanted.GONE:
                    continue
                if held.incarnation != unit.incarnation:
                    yield self._gone(machine, "another unit of the same name, destroyed since")
                elif reason is not None:
                    yield self._gone(machine, f"does not belong here any more: {reason}")
                elif self._forgotten(held):
                    yield Want(self.name, machine, wanted, _FORGOTTEN)
                    self.scene.settle(needs, machine)
                elif (changed := _changed(unit, held, wanted)) is not None:
                    short = amendments.too_much(unit, needs, held, wanted, host)
                    if not short:
                        yield Want(self.name, machine, wanted, changed)
                        self.scene.settle(needs, machine)
                    elif self.asked is None:
                        yield from self._pend(amendments.keeps(self.name, "text", host, short, self.now))
                continue
            if machine in self._found_running() and unsuitable(needs, host, self.scene) is None:
                yield Place(self.name, machine, wanted, _ORDERED_ANEW)
                self.scene.settle(needs, machine)
                continue
            refusal = fits(needs, host, self.scene)
            if refusal is None:
                yield Place(self.name, machine, wanted, "global: runs on every machine that matches")
                self.scene.settle(needs, machine)
                continue
            refusals.append(refusal)
            state = self.states.get(machine)
            if state is not None and machine not in self.view.placements_of(self.name):
                yield from self._orphan(machine, state.value, True)
        for machine in sorted(self.states.keys() - self.placements.keys()):
            if self._unknown(machine):
                yield DropState(self.name, machine)  # a report that was under way when its machine was removed
        if len(refusals) == len(self.scene.hosts):
            message = "global, and no machine matches" if refusals else "global, and no machine has joined"
            hint = nearest_fix(needs, self.scene.hosts.values(), self.scene)
            refused = Refused(len(refusals), tuple(refusals), message, hint)
            yield from self._pend(pending_of(refused, self.name, self.now))

    def _amend(self, unit: Unit, spec: UnitSpec, needs: Requirements, machine: str) -> Iterator[UnitAction]:
        """Let a live placement carry what `net limit` set."""
        host = self.scene.hosts.get(machine)
        decided = amendments.amendment(unit, spec, needs, self.placements[machine].value, host)
        if host is None or decided is None:
            return
        if isinstance(decided, Amend):
            yield decided
            self.scene.amend(needs, machine)
        elif self.asked is None:
            yield from self._pend(amendments.keeps(self.name, "bandwidth", host, decided, self.now))

    # ------------------------------------------------------------------ words for the above

    def _live(self) -> list[str]:
        return sorted(m for m, entry in self.placements.items() if entry.value.wanted is not Wanted.GONE)

    def _newest(self) -> str | None:
        live = [
            (entry.value.epoch, machine)
            for machine, entry in self.placements.items()
            if entry.value.wanted is not Wanted.GONE
        ]
        return max(live)[1] if live else None

    def _found_running(self) -> list[str]:
        """The machines where it runs by an order that can't be read any more: no reason to move it."""
        return [
            machine
            for machine in sorted(self.unreadable & self.scene.hosts.keys() & self.states.keys())
            if self.states[machine].value.phase in _EXECUTING
            and self.scene.hosts[machine].status is not MachineStatus.LOST
        ]

    def _ready(self, machine: str) -> bool:
        entry = self.view.roster.get(machine)
        return entry is not None and entry.value.status is MachineStatus.READY

    def _is_ordinary(self, placement: Placement) -> bool:
        """Whether its text is known, and not a strict one."""
        spec = self.view.spec(self.name, placement.spec)
        return spec is not None and not spec.requirements.strict

    def _unknown(self, machine: str) -> bool:
        """Whether the machine was removed, or never enrolled, and no agent is there."""
        return machine not in self.view.roster and machine not in self.view.presence

    def _state_of(self, placement: Placement) -> UnitState | None:
        state = self.states.get(placement.machine)
        return state.value if state is not None and state.value.epoch == placement.epoch else None

    def _runs(self, placement: Placement) -> bool:
        state = self._state_of(placement)
        return state is not None and state.phase is CopyPhase.RUNNING

    def _forgotten(self, placement: Placement) -> bool:
        """Whether the copy there was ordered later than this, in a store that was set back since.

        It obeys no order below its epoch; what is written now is above it, for its state told it.
        """
        state = self.states.get(placement.machine)
        return state is not None and state.value.epoch > placement.epoch

    def _failed(self, placement: Placement) -> bool:
        state = self._state_of(placement)
        return state is not None and state.phase in (CopyPhase.FAILED, CopyPhase.FINISHED)

    def _has_ended(self, machine: str) -> bool:
        """Whether its copy there is over: one that waits, or is made, may be the one that runs in the end."""
        state = self.states.get(machine)
        over = (CopyPhase.FAILED, CopyPhase.FINISHED, CopyPhase.GONE)
        return state is not None and state.value.phase in over and state.value.active != "active"

    def _gone(self, machine: str, reason: str) -> Gone:
        entry = self.placements[machine]
        self.placements[machine] = Entry(
            msgspec.structs.replace(entry.value, wanted=Wanted.GONE), entry.revision, entry.created
        )
        self.scene.leave(self.name, machine)
        return Gone(self.name, machine, reason)

    def _pend(self, pending: Pending) -> Iterator[UnitAction]:
        self.asked = pending.message
        known = self.view.pending.get(self.name)
        if known is None or _gist(known.value) != _gist(pending):
            yield Pend(pending)


def _changed(unit: Unit, held: Placement, wanted: Wanted) -> str | None:
    """Return what of the user's wishes the placement does not carry yet, or None."""
    if held.spec != unit.spec:
        return "its text was replaced"
    if held.restart < unit.restart:
        return "restart was asked for"
    if held.wanted is not wanted:
        return f"target state {unit.target}"
    return None


def _gist(pending: Pending) -> tuple[object, ...]:
    """What makes a pending record worth writing again: not its time."""
    return (pending.considered, pending.refused, pending.hint, pending.message)
