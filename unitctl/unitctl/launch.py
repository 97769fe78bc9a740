"""What start and load share: find each unit's text, submit what is not registered, raise the target, wait."""

from __future__ import annotations

import os
from collections.abc import Sequence

from unitctl.change import Patience, Wish, carry_out
from unitctl.client import connect
from unitctl.context import Invocation
from unitctl.goal import TARGET, Goal
from unitctl.render import warn
from unitctl.resolve import resolve
from unitfleet.api import Change


def launch(
    invocation: Invocation, units: Sequence[str], goal: Goal, patience: Patience, output: str, *, replace: bool
) -> None:
    """Bring units to the target of a goal and wait; raises what failed."""
    api = connect(invocation)
    sources = resolve(api, units, os.environ, replace=replace)
    for source in sources:
        if source.warning:
            warn(source.warning)
    wishes = [
        Wish(
            Change(
                name=source.name,
                text=source.text,
                replace=replace and source.text is not None,
                file=source.path,
                target=TARGET[goal],
            ),
            goal,
        )
        for source in sources
    ]
    carry_out(api, wishes, patience, invocation, output)
