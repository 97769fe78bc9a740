"""What the API shows of units, machines and endpoints, as pure functions of a `ClusterView`.

`settled`, `ok` and `why` of a unit are what `unitctl start` waits on: a copy counts only when it reports the
present incarnation, text and restart number at the epoch of its place.
"""

from __future__ import annotations

from collections.abc import Iterator

from unit_master.phases import UNREADABLE, Phases, Seen, differs, is_template, live, machine_status
from unit_master.view import ClusterView, Entry
from unitfleet import keys
from unitfleet.api import CopyView, EndpointView, MachineView, UnitView
from unitfleet.bandwidth import asked
from unitfleet.model import (
    Capacity,
    CopyPhase,
    MachineStatus,
    Placement,
    Presence,
    TargetState,
    Unit,
    UnitState,
    Wanted,
)
from unitfleet.names import fault


class Views:
    """Makes views of one `ClusterView` at one moment; what they share is computed once."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._phases = Phases(view)

    def names(self) -> list[str]:
        """Return the names of all units, unreadable records too, in order."""
        unreadable = {name for key in self._view.bad if (name := keys.split(key)[-1]) and key == keys.unit(name)}
        # what no unit can be called is no unit: the cluster's status tells of it
        return sorted(self._view.units.keys() | {name for name in unreadable if fault(name) is None})

    def unit(self, name: str) -> UnitView | None:
        """Return how a unit is, or None when there is none of that name."""
        entry = self._view.units.get(name)
        if entry is None:
            return self._unreadable(name) if keys.unit(name) in self._view.bad else None
        unit = entry.value
        spec = self._view.spec(name, unit.spec)
        is_global = spec is not None and spec.requirements.is_global
        pending = self._view.pending.get(name)
        seen = self._phases.seen(unit, spec, pending.value if pending else None)
        if seen.ok and pending is not None:
            seen = Seen(seen.phase, seen.settled, True, pending.value.message, seen.since)
        return UnitView(
            name=name,
            target=unit.target,
            phase=seen.phase,
            settled=seen.settled,
            ok=seen.ok,
            why=seen.why,
            since=seen.since or unit.changed_at,
            spec=unit.spec,
            incarnation=unit.incarnation,
            restart=unit.restart,
            is_global=is_global,
            is_template=is_template(name),
            description=spec.description if spec else "",
            rev=max(
                entry.revision,
                pending.revision if pending else 0,
                *(held.revision for held in self._view.placements_of(name).values()),
                *(state.revision for state in self._view.states_of(name).values()),
            ),
            copies=tuple(self._copies(name, unit)),
            pending=pending.value if pending else None,
        )

    def _unreadable(self, name: str) -> UnitView:
        key = keys.unit(name)
        return UnitView(
            name=name,
            target=TargetState.INACTIVE,
            phase=UNREADABLE,
            settled=True,
            ok=False,
            why=f"{self._view.bad[key]}; destroy it and submit it again",
            since=0.0,
            spec="",
            incarnation="",
            restart=0,
            is_global=False,
            is_template=is_template(name),
            description="",
            rev=self._view.revisions[key],
            copies=tuple(self._copies(name, None)),
        )

    # ------------------------------------------------------------------ copies

    def _copies(self, name: str, unit: Unit | None) -> Iterator[CopyView]:
        placements = self._view.placements_of(name)
        states = self._view.states_of(name)
        order = [p.machine for p in live(self._view, unit)] if unit else []
        order += sorted((placements.keys() | states.keys()) - set(order))
        for machine in order:
            held = placements.get(machine)
            state = states.get(machine)
            if held is None and state is not None and state.value.phase is CopyPhase.GONE:
                continue
            yield self._copy(machine, held.value if held else None, state.value if state else None, unit)

    def _copy(self, machine: str, held: Placement | None, state: UnitState | None, unit: Unit | None) -> CopyView:
        name, status = self._view.machine_name(machine), machine_status(self._view, machine)
        wanted, reason = (held.wanted, held.reason) if held else ("", "")
        epoch = held.epoch if held else state.epoch if state else 0
        if state is None:
            return CopyView(
                machine=machine,
                machine_name=name,
                machine_status=status,
                wanted=wanted,
                epoch=epoch,
                reason=reason,
                phase="",
                current=False,
            )
        return CopyView(
            machine=machine,
            machine_name=name,
            machine_status=status,
            wanted=wanted,
            epoch=epoch,
            reason=reason,
            phase=state.phase,
            load=state.load,
            active=state.active,
            sub=state.sub,
            health=state.health,
            address=state.address,
            ports=state.ports,
            driver=state.driver,
            copy_id=state.copy_id,
            pid=state.pid,
            image=state.image,
            since=state.since,
            restarts=state.restarts,
            cause=state.cause,
            progress=state.progress,
            message=state.message,
            current=unit is not None and differs(unit, state) is None,
        )

    # ------------------------------------------------------------------ phases


def machine_view(view: ClusterView, machine: str) -> MachineView | None:
    """Return how a machine is, or None when nobody knows it."""
    known = view.roster.get(machine)
    present = view.presence.get(machine)
    if known is None and present is None:
        return None
    ordered = view.machine_specs.get(machine)
    measured = view.resources.get(machine)
    capacity = (measured or present or known).value.capacity  # type: ignore[union-attr]
    held = [view.placements_of(unit)[machine].value for unit in sorted(view.on_machine.get(machine, ()))]
    needs = [
        asked(spec.requirements, placement.bandwidth)
        for placement in held
        if (spec := view.spec(placement.unit, placement.spec)) is not None
    ]
    status = machine_status(view, machine)
    warming = present.value.warming if present and status == MachineStatus.READY else ""
    return MachineView(
        id=machine,
        name=view.machine_name(machine),
        status="warming" if warming else status,
        address=_address(present, view, machine),
        metadata=view.metadata(machine),
        cordoned=ordered is not None and ordered.value.cordoned,
        drained=ordered is not None and ordered.value.drained,
        drivers=present.value.drivers if present else (),
        versions=present.value.versions if present else {},
        capacity=capacity,
        reserved=Capacity(
            cpu=round(sum((each.cpu for each in needs), 0.0), 3),
            memory=sum(each.memory for each in needs),
            disk=sum(each.disk for each in needs),
            egress=sum(each.egress for each in needs),
            ingress=sum(each.ingress for each in needs),
        ),
        used=Capacity(
            cpu=measured.value.cpu_used,
            memory=measured.value.memory_used,
            disk=measured.value.disk_used,
            egress=measured.value.egress_used,
            ingress=measured.value.ingress_used,
        )
        if measured
        else Capacity(),
        units=sum(1 for placement in held if placement.wanted is not Wanted.GONE),
        load=measured.value.load if measured else 0.0,
        since=known.value.since if known else 0.0,
        reason=f"does not hold its warm set: {warming}"
        if warming
        else known.value.reason
        if known
        else "seen, not enrolled by the leader yet",
        closed=measured.value.closed if measured else "",
    )


def machine_views(view: ClusterView) -> list[MachineView]:
    """Return every machine that is there or was, by name."""
    found = (machine_view(view, machine) for machine in view.roster.keys() | view.presence.keys())
    return sorted((one for one in found if one is not None), key=lambda one: (one.name, one.id))


def endpoints(view: ClusterView, units: list[str]) -> tuple[EndpointView, ...]:
    """Return the address and ports of every copy of `units` that runs, is healthy and is to stay."""
    found = []
    for name in units:
        entry = view.units.get(name)
        if entry is None or entry.value.target is not TargetState.LAUNCHED:
            continue
        for placement in live(view, entry.value):
            state = view.states_of(name).get(placement.machine)
            if state is not None and _serves(view, placement, state.value):
                found.append(
                    EndpointView(
                        unit=name,
                        machine=placement.machine,
                        address=state.value.address
                        or _address(view.presence.get(placement.machine), view, placement.machine),
                        ports=state.value.ports,
                        epoch=placement.epoch,
                    )
                )
    return tuple(found)


def _serves(view: ClusterView, placement: Placement, state: UnitState) -> bool:
    return (
        state.incarnation == placement.incarnation
        and state.phase is CopyPhase.RUNNING
        and state.health in ("", "healthy")
        and machine_status(view, placement.machine) != MachineStatus.LOST
    )


def _address(present: Entry[Presence] | None, view: ClusterView, machine: str) -> str:
    if present is not None:
        return present.value.address
    known = view.roster.get(machine)
    return known.value.address if known else ""
