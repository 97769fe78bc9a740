"""What is said of a unit, in words: pure, so that every verb says it the same way."""

from __future__ import annotations

from collections.abc import Iterable

from unitctl.render import joined
from unitfleet.api import CopyView, UnitView
from unitfleet.model import Pending, Port, TargetState

# Phases of a unit that no machine has taken.
UNPLACED = ("pending", "waiting-for-machine")


def place(view: UnitView) -> str:
    """The machines of a unit, by name; "" when it has none."""
    names = [copy.machine_name for copy in view.copies if copy.wanted != "gone"]
    if not view.is_global:
        return names[0] if names else ""
    return names[0] if len(names) == 1 else f"{len(names)} machines" if names else ""


def addresses(copy: CopyView, *, full: bool = False) -> str:
    """Where a copy answers: 10.0.0.2:8081,8443; full: 10.0.0.2:8081->80/tcp."""
    if not copy.address or not copy.ports:
        return copy.address if full else ""
    host = f"[{copy.address}]" if ":" in copy.address else copy.address
    ports = [_port(port, full=full) for port in copy.ports]
    return f"{host}:{','.join(dict.fromkeys(ports))}"


def _port(port: Port, *, full: bool) -> str:
    if full:
        return f"{port.host}->{port.container}/{port.protocol}"
    return str(port.host) if port.protocol == "tcp" else f"{port.host}/{port.protocol}"


def copy_state(view: UnitView, copy: CopyView) -> str:
    """One word for a copy: the unit's phase at its place, `leaving` for one that is to go."""
    if copy.wanted in ("gone", "") and copy.phase not in ("gone", "failed", "finished", ""):
        return "leaving"
    if not view.is_global and copy is view.copies[0]:
        return view.phase
    return copy.phase or "placed"


def step(view: UnitView) -> str:
    """What a unit is at, for one who waits: `placed on m2`, `pulling 41 %`, `restarting: exited with 1`."""
    copy = view.copies[0] if view.copies else None
    match view.phase:
        case phase if phase in UNPLACED:
            reason = view.pending.message if view.pending else view.why
            return f"not placed: {reason}" if reason else "waiting to be placed"
        case "placed":
            return f"placed on {place(view)}" if place(view) else "placed"
        case "pulling" if copy is not None and copy.progress >= 0:
            layers = copy.message.rpartition(" (")[2]
            return f"pulling {copy.progress} %" + (f" ({layers}" if layers.endswith(" layers)") else "")
        case "restarting":
            reason = copy.message if copy is not None and copy.current else ""  # a former copy's is old news
            return f"restarting: {reason}" if reason else "restarting"
        case "failed":
            reason = copy.message if copy is not None and copy.message else view.why
            return f"failed: {reason}" if reason else "failed"
        case phase:
            return phase


def summary(view: UnitView) -> str:
    """A unit in one line after its name: `running on m2 10.0.0.2:8081`."""
    words = [view.phase]
    if place(view) and view.phase not in ("inactive", *UNPLACED):
        words.append(f"on {place(view)}")
    if view.copies and not view.is_global and view.phase == "running" and addresses(view.copies[0]):
        words.append(addresses(view.copies[0]))
    if view.copies and view.phase == "running" and view.copies[0].health in ("starting", "unhealthy"):
        words.append(f"(health: {view.copies[0].health})")
    return " ".join(words)


def waiting_for(view: UnitView) -> str:
    """Where a unit is stuck, for one who gave up waiting: `still pulling 41 % on m2: …`."""
    words = f"still {step(view)}" if view.phase not in UNPLACED else step(view)
    if place(view) and view.phase != "placed":
        words += f" on {place(view)}"
    restarts = max((copy.restarts for copy in view.copies), default=0)
    if restarts:
        words += f", restarted {restarts} {'time' if restarts == 1 else 'times'}"
    return f"{words}: {view.why}" if view.why and view.why not in words else words


def refusals(pending: Pending) -> tuple[str, ...]:
    """Which rule refused how many machines, the most first."""
    rules = sorted(pending.refused, key=lambda count: -count.machines)
    return tuple(
        f"{count.rule} refused {count.machines}{f': {count.example}' if count.example else ''}" for count in rules
    )


def considered(pending: Pending) -> str:
    """How many machines were looked at."""
    match pending.considered:
        case 0:
            return "there is no machine yet"
        case 1:
            return "1 machine considered, it can't take it"
        case count:
            return f"{count} machines considered, none can take it"


def stays(target: TargetState, names: Iterable[str]) -> str:
    """What becomes of units that no machine takes now."""
    many = list(names)
    return f"the target stays {target.value}: {'they start' if len(many) > 1 else 'it starts'} as soon as one can"


def units_text(names: Iterable[str]) -> str:
    """Some units in a sentence: `a.service`, or `12 units (a.service, b.service and 10 more)`."""
    many = list(names)
    return many[0] if len(many) == 1 else f"{len(many)} units ({joined(many, 3)})"


def copy_warnings(view: UnitView) -> tuple[str, ...]:
    """What the agents had to say of copies that stopped: a stop signal that was swallowed, for one."""
    return tuple(f"{view.name} on {copy.machine_name}: {copy.message}" for copy in view.copies if copy.message)
