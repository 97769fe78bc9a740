"""iptables and ip6tables, asked and told. Blocks: the duty calls it in a thread."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from unit_agent.shaping.rules import ours, script
from unit_agent.shaping.things import Rules
from unitfleet.errors import DriverError

TIMEOUT_S = 10.0
LOCK_WAIT_S = 5
"""The Engine changes rules too: for so long its lock is waited for."""


def installed(program: str) -> bool:
    """Tell whether the program is on this host: where it is not, none of our rules are."""
    return shutil.which(f"{program}-restore", path=_path()) is not None


def available(program: str) -> bool:
    """Tell whether this kernel speaks the program's protocol at all."""
    return program == "iptables" or Path("/proc/net/if_inet6").exists()


def standing(program: str) -> Rules | None:
    """Return our rules as they stand, or None for none. Raises `DriverError`."""
    lines = ours(_run([f"{program}-save", "-t", "mangle"], ""))
    return Rules(program, lines) if lines else None


def put(wanted: Rules, now: Rules | None) -> None:
    """Turn our rules into the wanted ones in one transaction. Raises `DriverError`."""
    _restore(wanted.program, script(wanted.lines, now.lines if now else ()))


def remove(now: Rules) -> None:
    """Remove our rules and chains, and see that they are gone. Raises `DriverError`."""
    _restore(now.program, script((), now.lines))
    if standing(now.program) is not None:
        raise DriverError("some of it still stands")


def _restore(program: str, text: str) -> None:
    _run([f"{program}-restore", "--noflush", "-w", str(LOCK_WAIT_S)], text)


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _run(argv: list[str], text: str) -> str:
    env = {**os.environ, "PATH": _path(), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, env=env
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"cannot run {argv[0]}: {error}") from error
    if done.returncode:
        raise DriverError(f"cannot run {argv[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout
