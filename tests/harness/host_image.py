"""The image of a whole host, made once a machine: systemd as PID 1, cloud-init, etcd and Docker Engine.

Two minutes from nothing, with the distribution and the mirror that this machine itself uses. It is kept as
`/var/cache/unitfleet-test/host-<digest>.tar`; the digest is that of the recipe, so a changed one is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("/var/cache/unitfleet-test")
NEEDED = ("debootstrap", "unshare", "chroot", "tar")
_RECIPE = Path(__file__).with_name("host-image.sh")
_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
_MAKING_S = 900
_UNUSED_S = 14 * 86400  # an image that no recipe asked for in so long goes


class NoHostImage(Exception):
    """The image is not there and can't be made on this machine; says why."""


class HostImageFailed(Exception):
    """The recipe does not work; says what it said."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What this machine was installed from."""

    suite: str
    mirror: str
    components: tuple[str, ...]

    @classmethod
    def of_this_machine(cls) -> Distribution:
        """Read it from apt's sources; raises `NoHostImage`."""
        suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        for found in _sources():
            if found.suite == suite:
                return found
        raise NoHostImage(f"apt's sources name no mirror of {suite or 'this distribution'}")


def why_not() -> str | None:
    """Return which program is missing to make an image, or None."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [program for program in NEEDED if shutil.which(program, path=path) is None]
    return f"needs {' and '.join(missing)}, which is not installed" if missing else None


def host_image() -> Path:
    """Return the archive of the root file system, made if it is not there.

    Raises `NoHostImage`, and `HostImageFailed` when the recipe itself does not work.
    """
    distribution = Distribution.of_this_machine()
    recipe = _RECIPE.read_bytes() + repr((distribution.suite, platform.machine())).encode()
    archive = CACHE / f"host-{hashlib.sha256(recipe).hexdigest()[:16]}.tar"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not archive.exists():
            _make(archive, distribution)
        os.utime(archive)
        for other in CACHE.glob("host-*.tar"):
            if time.time() - other.stat().st_mtime > _UNUSED_S:
                other.unlink()
    return archive


def _make(archive: Path, distribution: Distribution) -> None:
    if reason := why_not():
        raise NoHostImage(reason)
    release = f"{distribution.mirror.rstrip('/')}/dists/{distribution.suite}/Release"
    try:
        urllib.request.urlopen(release, timeout=20).close()
    except OSError as error:
        raise NoHostImage(f"cannot fetch {release}: {error}") from error
    root, partial = CACHE / "making", CACHE / "making.tar"
    shutil.rmtree(root, ignore_errors=True)  # of one that was killed
    told = [str(root), distribution.suite, distribution.mirror, ",".join(distribution.components)]
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", str(_RECIPE), *told]
    env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        _run(isolated, env)
        _run(["tar", "-C", str(root), "--one-file-system", "-cf", str(partial), "."], env)
        partial.rename(archive)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        partial.unlink(missing_ok=True)


def _run(argv: list[str], env: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MAKING_S
        )
    except subprocess.TimeoutExpired as error:
        raise HostImageFailed(f"cannot make the image of a host: {argv[0]} ran for {_MAKING_S} s") from error
    if done.returncode != 0:
        raise HostImageFailed(
            f"cannot make the image of a host: {argv[0]} failed: {(done.stdout + done.stderr)[-1500:].strip()}"
        )


def _sources() -> list[Distribution]:
    """Return apt's sources, of both ways to write them, in its order."""
    found: list[Distribution] = []
    files = [_SOURCES[0], *sorted(_SOURCES[1].glob("*"))]
    for path in (path for path in files if path.is_file()):
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            for stanza in text.split("\n\n"):
                lines = (line.partition(":") for line in stanza.splitlines() if not line.startswith("#"))
                said = {key: value.split() for key, _, value in lines}
                for suite in said.get("Suites", []):
                    found.append(Distribution(suite, said["URIs"][0], tuple(said.get("Components", []))))
        else:
            for line in text.splitlines():
                words = [word for word in line.split("#")[0].split() if not word.startswith(("[", "signed-by="))]
                if len(words) > 3 and words[0] == "deb":
                    found.append(Distribution(words[2], words[1], tuple(words[3:])))
    return found
