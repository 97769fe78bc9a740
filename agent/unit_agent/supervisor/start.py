"""Run a supervisor: `start.py DIRECTORY BOOT_ID LOCK_FD LISTENER_FD [start]`, as the process driver starts it.

Kept this short because a script is compiled anew at each start, and modules are not.
"""

import sys

sys.path.append(__file__.rsplit("/", 3)[0])

from unit_agent.supervisor.daemon import main

main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ["start"])
