"""cloud-init's own judgement of user-data, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

PATIENCE_S = 60.0

_TOLD = re.compile(r"^(?:Error:\s*)?(?:(?:Invalid user-data|Cloud config schema errors)[^:]*:\s*)?")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What cloud-init says: `absent` when it could not be asked and why, else its complaints."""

    absent: str = ""
    complaints: tuple[str, ...] = ()


def ask(raw: bytes, program: str = "cloud-init") -> Judgement:
    """Let `cloud-init schema` judge user-data."""
    path = shutil.which(program)
    if path is None:
        return Judgement(absent="cloud-init is not installed here: its own schema was not asked")
    with tempfile.NamedTemporaryFile(prefix="user-data-") as file:
        file.write(raw)
        file.flush()
        argv = [path, "schema", "--config-file", file.name]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Judgement(absent=f"cloud-init could not be asked: {error}")
    if done.returncode == 0:
        return Judgement()
    said = _TOLD.sub("", (done.stderr.strip() or done.stdout.strip()).replace("\n", " "))
    return Judgement(complaints=tuple(part.strip() for part in said.split(", ") if part.strip()) or ("refused",))
