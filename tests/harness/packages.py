"""Our packages, as `packaging/build` makes them, for tests: each version once a session."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
OLDER, NEWER = "98.1.0", "98.2.0"
"""Two versions of this very tree; no release is called so."""

_BUILDING_S = 600


class NoPackages(Exception):
    """No package can be made here, for want of a network."""


@dataclass(frozen=True, slots=True)
class Packages:
    """Where they lie."""

    deb: Path
    newer_deb: Path
    rpm: Path
    wheel: Path


def build(into: Path) -> Packages:
    """Build a .deb of two versions, and an .rpm and a wheel of the older; raises `NoPackages`."""
    make(into, OLDER, "wheel", "deb", "rpm")
    make(into, NEWER, "deb")
    return Packages(
        deb=only(into, f"unitfleet_{OLDER}*.deb"),
        newer_deb=only(into, f"unitfleet_{NEWER}*.deb"),
        rpm=only(into, f"unitfleet-{OLDER}*.rpm"),
        wheel=only(into, f"unitfleet-{OLDER}*.whl"),
    )


def make(into: Path, version: str, *kinds: str, top: Path = TOP) -> None:
    """Build packages of a tree, under a version; raises `NoPackages`."""
    argv = [str(top / "packaging/build"), "--version", version, "--to", str(into), *kinds]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BUILDING_S)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        if not _index_answers():
            raise NoPackages(f"no index of Python packages answers here, and packages are made with one: {said}")
        raise AssertionError(f"cannot build {', '.join(kinds)} {version}: {said}")


def _index_answers() -> bool:
    with tempfile.TemporaryDirectory() as into:
        told = ["--quiet", "--no-deps", "--no-cache-dir", "--retries", "0", "--timeout", "15", "-d", into, "six"]
        argv = [sys.executable, "-m", "pip", "download", *told]
        return subprocess.run(argv, capture_output=True, timeout=120).returncode == 0


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of a pattern in a folder."""
    (found,) = folder.glob(pattern)
    return found
