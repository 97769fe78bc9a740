"""What EC2 says of this instance's end, and what follows from it. Pure.

Silence is never an answer: what the service does not say leaves all as it was, in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from unitfleet.model import Record

SPOT = "spot/instance-action"
LIFECYCLE = "autoscaling/target-lifecycle-state"
ADVICE = "events/recommendations/rebalance"
QUESTIONS = (SPOT, LIFECYCLE, ADVICE)

KIND = "termination-notice"
ADVICE_KIND = "rebalance-advice"

MOST_NAMED = 10
"""Units that an event names, of those that stay."""


class _Action(msgspec.Struct):
    action: str
    time: str = ""


class _Advice(msgspec.Struct):
    notice_time: str = msgspec.field(name="noticeTime", default="")


@dataclass(frozen=True, slots=True)
class Notice:
    """EC2 ends this instance. `at`: when, as it says it; "" when it does not say."""

    why: str
    at: str = ""

    def __str__(self) -> str:
        return f"{self.why} at {self.at}" if self.at else self.why


@dataclass(frozen=True, slots=True)
class Look:
    """One look. `sure`: all that could have told of an end was answered; no notice means then that there is none.

    `advice`: since when EC2 recommends to leave this instance, "" when it does not, or did not say.
    """

    notice: Notice | None = None
    sure: bool = False
    advice: str = ""


class Known(Record, frozen=True, kw_only=True):
    """What was told and done already; it outlives the agent, so that nothing is told or done twice.

    `drained`: for this notice the order was given, or stood already; who takes it back afterwards is heeded.
    `stays`: units that were told to find no other machine.
    """

    notice: str = ""
    drained: bool = False
    stays: tuple[str, ...] = ()
    advice: str = ""

    @property
    def asks(self) -> bool:
        """Whether a master is still to be asked for the drain."""
        return bool(self.notice) and not self.drained


@dataclass(frozen=True, slots=True)
class Told:
    """An event's kind and words."""

    kind: str
    message: str


def read(answers: Mapping[str, str | None]) -> Look:
    """Read answers by question; None: there is none. A question that is missing was not answered.

    Of an action the time goes first: an instance that is ended by both goes at that time at the latest.
    """
    sure = SPOT in answers and LIFECYCLE in answers
    notice = None
    if (text := answers.get(SPOT)) is not None:
        notice = _spot(text)
        sure = sure and notice is not None  # what nobody can read is no "there is none"
    if notice is None and (state := answers.get(LIFECYCLE)) and state.rpartition(":")[2] == "Terminated":
        notice = Notice(f"auto scaling: {state}")
    return Look(notice, sure, _advice(answers.get(ADVICE)))


def decide(known: Known, look: Look, now: float, name: str, *, drained: bool) -> tuple[Known, Sequence[Told]]:
    """Return what is known after a look, and what is to be told of it.

    `name` is this machine's; `drained`: it is now, whoever ordered it.
    """
    told = []
    if look.advice and look.advice != known.advice:
        known = msgspec.structs.replace(known, advice=look.advice)
        words = "EC2 recommends to leave this instance: it may be ended sooner than others; nothing is moved"
        told.append(Told(ADVICE_KIND, f"{words}; unitctl machines drain {name} would"))
    notice = look.notice
    if notice is not None and str(notice) != known.notice and (look.sure or not known.notice):
        known = Known(notice=str(notice), advice=known.advice)
        told.append(Told(KIND, f"EC2 ends this instance {left(notice, now)} ({notice}): it is to be drained"))
    elif notice is None and look.sure and known.notice:
        now_so = f"{name} stays drained: unitctl machines undrain {name}" if drained else f"{name} is not drained"
        told.append(Told(KIND, f"EC2 took its notice back ({known.notice}); {now_so}"))
        known = Known(advice=known.advice)
    return known, told


def refused(why: str) -> Told:
    """Return what to tell when no master took the order."""
    return Told(KIND, f"{why}; it is tried again until this host ends")


def ordered(known: Known, name: str) -> tuple[Known, Told]:
    """Return what is known once this machine is drained, and what to tell; the notice may be gone meanwhile."""
    if not known.notice:
        words = "is drained, and EC2 took its notice back meanwhile"
        return known, Told(KIND, f"{name} {words}: unitctl machines undrain {name}")
    return msgspec.structs.replace(known, drained=True), Told(KIND, f"{name} is drained: its units move away")


def left(notice: Notice, now: float) -> str:
    """Say how much time is left."""
    at = moment(notice.at)
    if at is None:
        return "soon, it does not say when"
    return f"in {at - now:.0f} s" if at > now else "now"


def staying(known: Known, pending: Mapping[str, str]) -> tuple[Known, Sequence[Told]]:
    """Return what is known, and what to tell, of units here that find no other machine, each with why."""
    new = sorted(pending.keys() - set(known.stays))
    if not new:
        return known, ()
    named = [f"{unit} ({pending[unit]})" for unit in new[:MOST_NAMED]]
    more = f" and {len(new) - MOST_NAMED} more" if len(new) > MOST_NAMED else ""
    known = msgspec.structs.replace(known, stays=(*known.stays, *new))
    units = "1 unit finds" if len(new) == 1 else f"{len(new)} units find"
    message = f"{units} no other machine and will go down with this one: {', '.join(named)}{more}"
    return known, [Told(KIND, message)]


def moment(text: str) -> float | None:
    """Read a time as EC2 writes it; None for what is none."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _spot(text: str) -> Notice | None:
    """Read `{"action": "terminate", "time": "…Z"}`: to stop or hibernate ends what runs here, too."""
    try:
        action = msgspec.json.decode(text, type=_Action)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if action.action not in ("terminate", "stop", "hibernate"):
        return None
    return Notice(f"spot: {action.action}", action.time if moment(action.time) is not None else "")


def _advice(text: str | None) -> str:
    try:
        return msgspec.json.decode(text, type=_Advice).notice_time if text else ""
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
