"""What a supervisor imports: hundreds of them run on a host, and every module counts in each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unit_agent.supervisor import daemon
from unitfleet import quoting

LARGE = frozenset(
    "collections ctypes dataclasses enum functools json logging re signal socket subprocess typing".split()
)
LOADED = """
import sys
sys.path += sys.argv[1:]
import unit_agent.supervisor.daemon
print(*sys.modules)
"""


def test_a_supervisor_imports_no_module_of_the_standard_library_that_is_large() -> None:
    roots = [str(Path(daemon.__file__).parents[2]), str(Path(quoting.__file__).parents[1])]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADED, *roots], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(ran.stdout.split())
    assert "unitfleet.environment" in loaded
    assert not loaded & LARGE
