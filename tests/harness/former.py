"""Former versions: the last before output was kept and hosts had identities, and the last before this one.

The first has no packages and knows no `notify` of systemd: today's `packaging/` is laid over it, and its services
count as started once they run. A clone without history can't have either, and says so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from harness import packages

FIRST = "61796b087e3e2f1eac782136962fdb82f0ac5cdd"
"""Its agents know the output of the copies they have, and nothing of what was elsewhere; they have no keys."""
LAST = "f9bc01526d7da6d8d1c923558f705f6a57d28861"
VERSION = "97.1.0"
"""What its package is called, so that those of today are newer."""

_ROOTS = ("core", "agent", "master", "unitctl")
_NEW_FLAGS = ("--secrets-key-file", "--strict-dir")
_PACKAGING = ("build", "nfpm.yaml", "sysusers.conf", "tmpfiles.conf", "systemd", "etc", "scripts")


class NoFormer(Exception):
    """The tree can't be had here; says why."""


def tree(into: Path, commit: str = FIRST) -> Path:
    """Write the tree of a commit to a new folder; raises `NoFormer`."""
    git = ["git", "-C", str(packages.TOP)]
    if subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True).returncode != 0:
        raise NoFormer(f"needs the history back to {commit[:7]}, and this clone is shallow, or none")
    into.mkdir()
    archive = subprocess.run([*git, "archive", commit], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return into


def build(into: Path) -> Path:
    """Build the .deb of the first; raises `NoFormer` and `NoPackages`."""
    top = tree(into / "former")
    (top / "packaging").mkdir()
    for name in _PACKAGING:
        source, target = packages.TOP / "packaging" / name, top / "packaging" / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    for unit in (top / "packaging/systemd").iterdir():
        text = re.sub("^WatchdogSec=.*\n", "", unit.read_text(), flags=re.MULTILINE)
        unit.write_text(text.replace("Type=notify", "Type=exec"))
    recipe = top / "packaging/nfpm.yaml"
    recipe.write_text(recipe.read_text().replace("compression: zstd", "compression: none"))  # the slowest step
    subprocess.run(["git", "init", "--quiet", str(top)], check=True)  # files that git knows are packed
    tools = packages.TOP / ".venv-packaging"
    if tools.exists():  # else the packagers are fetched once more
        (top / tools.name).symlink_to(tools)
        (top / ".git/info/exclude").write_text(f"{tools.name}\n")
    packages.make(into, VERSION, "deb", top=top)
    return packages.only(into, f"unitfleet_{VERSION}*.deb")


def started_as(former: Path, names: Container[str]) -> Callable[[str, Sequence[str]], Sequence[str]]:
    """Return how daemons of a cluster are started: those called so are of the former version."""

    def start(name: str, argv: Sequence[str]) -> Sequence[str]:
        return of_former(former, argv) if name in names else argv

    return start


def of_former(former: Path, argv: Sequence[str]) -> list[str]:
    """Return what starts the same program of the former version."""
    words = list(argv)
    for flag in _NEW_FLAGS:
        if flag in words:
            at = words.index(flag)
            del words[at : at + 2]
    return ["/usr/bin/env", f"PYTHONPATH={':'.join(str(former / root) for root in _ROOTS)}", *words]
