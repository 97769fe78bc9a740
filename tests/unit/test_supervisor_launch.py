"""How a supervisor starts a program. In a process of its own: it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


PROTECTED = """
import os, sys
from unit_agent.supervisor import launch

launch.OOM_SCORE = sys.argv[1]
service = {"user": "", "group": "", "limits": [], "working_directory": "", "working_directory_optional": False}
pid, _ = launch.spawn(service, {"argv0": "", "privileged": False}, ["/bin/true"], {}, (1, 2))
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(("score", "then"), [("-900\n", "0"), ("300\n", "300\n")])
def test_a_program_is_no_safer_from_the_kernel_than_others_though_its_agent_is(
    tmp_path: Path, score: str, then: str
) -> None:
    """systemd keeps the agent till last; what inherits that and leaks memory ends the others on its host."""
    (tmp_path / "score").write_text(score)
    argv = [sys.executable, "-c", PROTECTED, str(tmp_path / "score")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, (tmp_path / "score").read_text()) == (0, "", then)


def test_a_signal_between_fork_and_exec_ends_the_program() -> None:
    """The child had the supervisor's handlers for a moment: a stop just then was lost until its timeout."""
    done = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
