"""The brake on mass loss: when many machines vanish at once, the fault is more likely between us and them.

Counted on the roster (every machine that was ever seen and not removed): machines already lost within the
last `WINDOW_S` and those that would be lost now. Pure; times are seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unitfleet.model import Brake, BrakeOrder

WINDOW_S = 60.0
HOLD_S = 60.0
HOLD_SHARE = 1 / 3
HOLD_AT_LEAST = 2
STOP_SHARE = 0.55
STOP_AT_LEAST = 3


@dataclass(frozen=True, slots=True)
class BrakeState:
    """Whether absent machines may be declared lost. mode: off | holding | stopped | released | held.

    `again_s` is when to look again; None: not before something changes.
    """

    mode: str
    why: str = ""
    again_s: float | None = None

    @property
    def lets_go(self) -> bool:
        """Whether losses may be declared now."""
        return self.mode in ("off", "released")


def brake(
    absent: Mapping[str, float], lost: Mapping[str, float], known: int, order: Brake | None, now: float
) -> BrakeState:
    """Decide on the machines past their grace (`absent`: id → when seen absent; `lost`: id → when declared lost).

    `known` counts the machines of the roster that were not lost for longer than the window.
    """
    recent = {machine: at for machine, at in lost.items() if now - at <= WINDOW_S}
    losses = {**recent, **absent}
    if order is not None and order.order is BrakeOrder.HOLD:
        return BrakeState("held", f"held by the operator; {len(absent)} machines are absent")
    if len(losses) < HOLD_AT_LEAST or len(losses) <= HOLD_SHARE * known:
        return BrakeState("off")
    if not absent:
        return BrakeState("off")
    latest = max(losses.values())
    if order is not None and order.order is BrakeOrder.RELEASE and order.at >= latest:
        return BrakeState("released", f"released by the operator with {len(losses)} of {known} machines lost")
    share = f"{len(losses)} of {known} machines went away within {WINDOW_S:g} s"
    if len(losses) >= STOP_AT_LEAST and len(losses) > STOP_SHARE * known:
        return BrakeState("stopped", f"{share}: nothing is moved until they return or `unitctl cluster release`")
    remaining = latest + HOLD_S - now
    if remaining > 0:
        return BrakeState("holding", f"{share}: looking again in {remaining:.0f} s before units move", remaining)
    return BrakeState("off")
