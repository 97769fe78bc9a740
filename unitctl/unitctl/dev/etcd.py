"""An etcd binary: the one on PATH, or one unpacked from the distribution's package; no service is installed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitctl.dev.layout import ADDRESS, Layout
from unitctl.failures import Failure
from unitctl.render import say

PACKAGE = "etcd-server"  # Debian 12 and 13, Ubuntu 24.04
FETCH_S = 300.0


def find(layout: Layout, env: Mapping[str, str]) -> str:
    """Return the path of an etcd; fetches one when there is none. Raises `Failure`."""
    fetched = layout.root / PACKAGE / "usr/bin/etcd"
    on_path = shutil.which("etcd", path=env.get("PATH"))
    if on_path:
        return on_path
    if not fetched.exists():
        _fetch(layout, env)
    return str(fetched)


def command(binary: str, layout: Layout, ports: Mapping[str, int]) -> list[str]:
    """Return the command line of the one member."""
    client, peer = (f"http://{ADDRESS}:{ports[name]}" for name in ("etcd", "etcd-peer"))
    return [
        binary,
        *("--name", "dev", "--data-dir", str(layout.state("etcd"))),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"dev={peer}"),
        *("--logger", "zap", "--log-level", "warn"),
    ]


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for it: `ETCD_*` of the caller would change what it does."""
    kept = {name: value for name, value in env.items() if not name.startswith("ETCD_")}
    if platform.machine() == "aarch64":
        kept["ETCD_UNSUPPORTED_ARCH"] = "arm64"  # 3.4 does not start there without it
    return kept


def _fetch(layout: Layout, env: Mapping[str, str]) -> None:
    """Download the package and unpack it into the state folder."""
    by_hand = "put an etcd, 3.4 or newer, on PATH"
    if not shutil.which("apt-get", path=env.get("PATH")):
        raise Failure("cannot find etcd: none is on PATH, and there is no apt-get to fetch one", hint=by_hand)
    say(f"fetching etcd: the package {PACKAGE}, unpacked into {layout.root}, not installed")
    downloads = layout.root / "download"
    shutil.rmtree(downloads, ignore_errors=True)
    (downloads / "lists/partial").mkdir(parents=True)
    (downloads / "cache/archives/partial").mkdir(parents=True)
    said = _run(["apt-get", "download", PACKAGE], downloads, env)
    if not list(downloads.glob("*.deb")):
        # The lists of a fresh host are empty or old; ours are our own, so that no root is needed.
        ours = ["apt-get", "-o", f"Dir::State::Lists={downloads}/lists", "-o", f"Dir::Cache={downloads}/cache"]
        said = _run([*ours, "update"], downloads, env) + _run([*ours, "download", PACKAGE], downloads, env)
    package = next(downloads.glob("*.deb"), None)
    if package is not None:
        unpacked = downloads / "unpacked"
        said = _run(["dpkg-deb", "-x", str(package), str(unpacked)], downloads, env)
        if (unpacked / "usr/bin/etcd").exists():
            unpacked.replace(layout.root / PACKAGE)
            shutil.rmtree(downloads)
            return
    raise Failure(f"cannot fetch etcd: {PACKAGE} can't be had from apt", details=said[-4:], hint=by_hand)


def _run(words: Sequence[str], directory: Path, env: Mapping[str, str]) -> list[str]:
    """Run a command in a folder; return its last words."""
    # As root apt would download as another user, who can't write into our folder.
    unsandboxed = ["-o", "APT::Sandbox::User=root"] if words[0] == "apt-get" and os.geteuid() == 0 else []
    try:
        done = subprocess.run(
            [words[0], *unsandboxed, *words[1:]],
            cwd=directory,
            env={**env, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    return [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
