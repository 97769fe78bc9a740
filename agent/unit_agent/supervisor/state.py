"""What a supervisor tells of its unit: `state.json`, replaced whole at each transition."""

from __future__ import annotations

import os
import time

from unit_agent.supervisor import plainjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "state.json"

# Phases of unitfleet.model.CopyPhase, and systemd's active state for each.
LOADED, STARTING, RUNNING, STOPPING, RESTARTING = "loaded", "starting", "running", "stopping", "restarting"
FINISHED, FAILED = "finished", "failed"
ACTIVE = {
    LOADED: "inactive",
    STARTING: "activating",
    RUNNING: "active",
    STOPPING: "deactivating",
    RESTARTING: "activating",
    FINISHED: "inactive",
    FAILED: "failed",
}
EXECUTING = (STARTING, RUNNING, STOPPING, RESTARTING)


def initial(boot_id: str) -> dict[str, Any]:
    """Return the state of a unit that was not started since the host booted."""
    return {
        "phase": LOADED,
        "active": "inactive",
        "sub": "dead",
        "pid": 0,
        "pid_start": 0,
        "boot_id": boot_id,
        "since": time.time(),
        "restarts": 0,
        "cause": "",
        "oom_kills": 0,
        "exit_code": None,
        "message": "",
        "stuck": False,
        "sessions": {},
    }


class State:
    """The present state; `tell` gets each new one as text."""

    def __init__(self, boot_id: str) -> None:
        self.fields = initial(boot_id)
        self.saved = True
        self.text = plainjson.write(self.fields)

    def change(self, **fields: Any) -> bool:
        """Take over fields and write the file; returns whether anything changed.

        A disk that takes nothing does not stop the unit: `saved` is False until `save` succeeds.
        """
        phase = fields.get("phase")
        if phase is not None:
            fields["active"] = fields.get("active", ACTIVE[phase])
            if fields["active"] != self.fields["active"]:
                fields["since"] = time.time()
        if all(self.fields[name] == value for name, value in fields.items()):
            return False
        self.fields.update(fields)
        self.text = plainjson.write(self.fields)
        self.save()
        return True

    def save(self) -> None:
        """Write the file, whole or not at all."""
        try:
            with open(FILE + ".new", "wb", buffering=0) as file:
                raw = self.text.encode()
                self.saved = file.write(raw) == len(raw)
            if self.saved:
                os.rename(FILE + ".new", FILE)
        except OSError:
            self.saved = False
