"""fleet's own functional tests of its client alone, by the same names.

Of the 43 these have no story under their name: KnownHostsVerification, TunnelScheduleBatchUnits and UnitSSHActions
ask for ssh, InstallUnit for systemd; DetectMachineId: a clone gets an id of its own (tests/unit/test_machine.py);
ClientVersionHelpOutput: the help names no version.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def client(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unitctl", *args], capture_output=True, text=True, timeout=60, check=False
    )


def test_client_version_flag() -> None:
    for args in (("--version",), ("version",)):
        told = client(*args)
        assert (told.returncode, told.stdout) == (0, f"unitctl {version('unitfleet')}\n")


def test_client_help_flag() -> None:
    for args in (("--help",), ("-h",)):
        told = client(*args)
        assert told.returncode == 0 and "list-unit-files" in told.stdout
    told = client()
    assert "list-unit-files" in told.stdout + told.stderr
    told = client("no-such-command")  # which fleetctl ended with 0
    assert told.returncode == 2 and "no such command" in told.stderr
