"""Run one command in a unit's place, as the process driver does: `once.py CORE DIRECTORY SECONDS WORD…`.

It has the unit's account, environment, directory and limits. The kernel ends it after SECONDS (an alarm outlives
exec), also when nobody is left who would. CORE holds the package `unitfleet`.
"""

import sys

sys.path += (__file__.rsplit("/", 3)[0], sys.argv[1])

import _signal  # type: ignore[import-not-found]
import os

from unit_agent.supervisor import launch, plainjson
from unit_agent.supervisor.environment import base_environment, read_files
from unit_agent.supervisor.group import Group


def main(directory: str, limit_s: int, words: list[str]) -> None:
    """Become the command; what keeps it from running is said on stderr, with systemd's exit code."""
    with open(directory + "/order.json") as file:
        order = plainjson.read(file.read())
    try:
        environment = base_environment(order, read_files(order["service"]["environment_files"]))
        launch.join(Group(directory).enter)
        _signal.alarm(limit_s)
        launch.become(order["service"], {"argv0": "", "privileged": False}, words, environment)
    except launch.Failed as failure:
        code, message = failure.code, failure.message
    except OSError as error:
        code, message = launch.EXEC, f"cannot run {words[0]}: {error}"
    os.write(2, message.encode(errors="replace"))
    os._exit(code)


main(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
