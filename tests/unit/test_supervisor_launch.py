"""How a supervisor starts a program. In a process of its own: it forks."""

from __future__ import annotations

import subprocess
import sys

STORY = """
import os, select, signal
from unit_agent.supervisor import launch

signal.signal(signal.SIGTERM, lambda number, frame: None)  # a supervisor has one of its own
service = {"user": "", "group": "", "limits": [], "working_directory": "", "working_directory_optional": False}
command = {"argv0": "", "privileged": False}
for _ in range(30):
    pid, reader = launch.spawn(service, command, ["/bin/sleep", "1000"], {}, (1, 2))
    os.kill(pid, signal.SIGTERM)  # before it has become /bin/sleep
    watched = os.pidfd_open(pid)
    if not select.select([watched], [], [], 10.0)[0]:
        os.kill(pid, signal.SIGKILL)
        raise SystemExit("the signal was lost")
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
    os.close(watched)
    os.close(reader)
"""


def test_a_signal_between_fork_and_exec_ends_the_program() -> None:
    """The child had the supervisor's handlers for a moment: a stop just then was lost until its timeout."""
    done = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
