"""Run a supervisor, as the process driver does: `start.py CORE DIRECTORY BOOT_ID LOCK_FD LISTENER_FD [start]`.

CORE holds the package `unitfleet`. Kept this short because a script is compiled anew at each start, and modules
are not.
"""

import sys

sys.path += (__file__.rsplit("/", 3)[0], sys.argv[1])

from unit_agent.supervisor.daemon import main

main(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:] == ["start"])
