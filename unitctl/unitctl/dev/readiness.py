"""Waiting until a daemon serves: by asking it, and never longer than it lives."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from typing import Any

import msgspec

from unitctl.context import Endpoint
from unitctl.dev.layout import ADDRESS, Layout
from unitctl.dev.processes import Identity, running
from unitctl.failures import Failure
from unitctl.transport import Connection
from unitfleet.errors import UnitfleetError

LOOK_S = 0.05
ANSWER_S = 2.0
LAST_LINES = 4


def await_ready(layout: Layout, name: str, identity: Identity, look: Callable[[], str], within_s: float) -> None:
    """Look until it says "" (ready); else it says what is missing, as an error of the connection does.

    Raises `Failure` with the last lines of the daemon's log: at once when it ended, or after `within_s`.
    """
    deadline = time.monotonic() + within_s
    missing = "it does not answer"
    while True:
        try:
            missing = look()
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, UnitfleetError) as error:
            missing = str(error)
        if not missing:
            return
        why = ""
        if running(identity) is None:
            why = "it ended"
        elif time.monotonic() > deadline:
            why = f"not ready after {within_s:g} s: {missing}"
        if why:
            raise Failure(
                f"cannot start {name}: {why}",
                details=last_lines(layout, name),
                hint="unitctl dev up tries again, unitctl dev down clears all away",
                see=str(layout.log(name)),
            )
        time.sleep(LOOK_S)


def etcd_is_ready(port: int) -> str:
    """Return what etcd lacks, "" when it serves."""
    health = _ask(port, "/health")
    return "" if health.get("health") in ("true", True) else "it has no leader"


def master_is_ready(port: int) -> str:
    """Return what a master lacks, "" when it knows the cluster."""
    return "" if _ask(port, "/readyz").get("status") == "ok" else "it does not know the cluster yet"


def agent_is_ready(port: int) -> str:
    """Return what an agent lacks, "" when its presence stands and it read its placements."""
    health = _ask(port, "/healthz")
    lacking = [word for word, key in (("registered", "standing"), ("synced", "synced")) if not health.get(key)]
    return f"it is not {' and '.join(lacking)} yet" if lacking else ""


def last_lines(layout: Layout, name: str) -> list[str]:
    """Return the end of a daemon's log."""
    try:
        return layout.log(name).read_text(errors="replace").splitlines()[-LAST_LINES:]
    except OSError:
        return []


def _ask(port: int, path: str) -> dict[str, Any]:
    """Return the JSON of an answer, be it an error's. Raises OSError and HTTPException."""
    connection = Connection(Endpoint(name=f"{ADDRESS}:{port}", host=ADDRESS, port=port), ANSWER_S)
    try:
        connection.request("GET", path)
        return msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    finally:
        connection.close()
