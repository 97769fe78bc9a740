"""The environment that a unit's commands get."""

from __future__ import annotations

import os

from unit_agent.restart import TIMED_OUT, WATCHDOG, Exit
from unit_agent.supervisor import processes
from unit_agent.supervisor.launch import DEFAULT_PATH
from unitfleet.environment import parse_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_files(files: list[tuple[str, bool]]) -> dict[str, str]:
    """Return what EnvironmentFile= assigns, later files over earlier; raises OSError for one that must exist."""
    found: dict[str, str] = {}
    for path, optional in files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                found.update(parse_file(file.read()))
        except OSError:
            if not optional:
                raise
    return found


def base_environment(order: dict[str, Any], files: dict[str, str]) -> dict[str, str]:
    """Return what every command of the unit gets; nothing of the agent's own environment."""
    return {
        "PATH": DEFAULT_PATH,
        **_own_account(),
        **dict(order["service"]["environment"]),
        **files,
        **({"CREDENTIALS_DIRECTORY": order["credentials"]} if order.get("credentials") else {}),
        "UNITFLEET_UNIT": order["unit"],
        "UNITFLEET_MACHINE": order["machine"],
        "UNITFLEET_EPOCH": str(order["epoch"]),
        processes.TOKEN: order["token"],
    }


def _own_account() -> dict[str, str]:
    """Return who we are, when that is not root; the driver passes it on as systemd's user manager does."""
    return {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "SHELL") if name in os.environ}


def ending(exit: Exit | None, clean: bool) -> dict[str, str]:
    """Return what ExecStop= and ExecStopPost= are told of the end (systemd.exec(5), $SERVICE_RESULT)."""
    if exit is None:
        return {"SERVICE_RESULT": "success"}
    if exit.cause == TIMED_OUT:
        return {"SERVICE_RESULT": "timeout"}
    if exit.cause == WATCHDOG:
        return {"SERVICE_RESULT": "watchdog"}
    if exit.signal:
        result = {"EXIT_CODE": "killed", "EXIT_STATUS": exit.signal.removeprefix("SIG")}
        return {"SERVICE_RESULT": "success" if clean else "signal", **result}
    result = {"EXIT_CODE": "exited", "EXIT_STATUS": str(exit.code)}
    return {"SERVICE_RESULT": "success" if clean else "exit-code", **result}
