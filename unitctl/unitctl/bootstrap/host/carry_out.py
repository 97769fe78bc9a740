"""The hands: writes what is decided and lets systemd run it. What is as it should be is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitctl.bootstrap.host.decide import MASTERS_USER, Decision, Write
from unitctl.failures import Failure
from unitctl.render import out

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns why it failed, "" when it did not."""

INSTALL_S = 600.0
COMMAND_S = 60.0
WARM_WITHIN_S = 120.0
WARM_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Hands:
    """Where files stand and how commands run. `run` None: nothing is started, files alone are written."""

    root: Path
    run: Run | None
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def tell(said: str) -> None:
    """Tell a step as it is done: who looks on while a host boots must not wait for the last one."""
    out(said)
    sys.stdout.flush()


def carry_out(decision: Decision, hands: Hands) -> list[str]:
    """Do what is decided, saying each step and why; returns what failed. Raises `Failure` for a file."""
    changed = {file.path for file in decision.files if _write(file, hands.root)}
    failures: list[str] = []
    if hands.run is None:
        if decision.services:
            names = ", ".join(service.name for service in decision.services)
            tell(f"not started, since files alone are asked for: {names}")
        return failures

    def do(words: Sequence[str], said: str) -> bool:
        assert hands.run is not None
        why = hands.run(words)
        if why:
            failures.append(f"cannot run {' '.join(words)}: {why}")
        else:
            tell(said)
        return not why

    for package in decision.packages:
        if do(["apt-get", "update", "-q"], "read the package lists"):
            keep = ["-o", "Dpkg::Options::=--force-confold"]  # our settings stand there already
            do(["apt-get", "install", "-q", "-y", *keep, package.name], f"installed {package.name}: {package.why}")
    for path in decision.handed:
        do(["chown", MASTERS_USER, path], f"gave {path} to {MASTERS_USER}: the master reads it")
    if decision.services:
        do(["systemctl", "daemon-reload"], "systemd has read its units")
    for service in decision.services:
        # Without waiting: a member of etcd is ready once the others are, and those may boot later.
        verb = "restart" if changed.intersection(service.reads) else "start"
        if service.enable and not do(["systemctl", "enable", service.name], f"{service.name} starts at each boot"):
            continue
        if service.enable or verb == "restart":
            do(["systemctl", "--no-block", verb, service.name], f"{verb}ed {service.name}: {service.why}")
    return [*failures, *_warm(decision.warm, hands)]


def run(words: Sequence[str]) -> str:
    """Run a command of this host."""
    patience_s = INSTALL_S if words[0] == "apt-get" else COMMAND_S
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            list(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience_s, env=env
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"exit code {done.returncode}")


def _write(file: Write, root: Path) -> bool:
    """Write a file whole, or leave it as it is; tells whether it changed."""
    path = root / file.path.lstrip("/")
    content = file.content.encode("utf-8", "surrogateescape")
    try:
        if path.exists() and path.read_bytes() == content:
            tell(f"{file.path} is as it should be: {file.why}")
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = file.mode or (path.stat().st_mode & 0o7777 if path.exists() else 0o644)
        beside = path.with_name(f".{path.name}.new")
        beside.write_bytes(content)
        beside.chmod(mode)
        if path.exists():
            os.chown(beside, path.stat().st_uid, path.stat().st_gid)
        beside.replace(path)
    except OSError as error:
        raise Failure(f"cannot write {file.path}: {(error.strerror or str(error)).lower()}") from error
    tell(f"wrote {file.path}: {file.why}")
    return True


def _warm(images: Sequence[str], hands: Hands) -> list[str]:
    """Tell the masters which images to hold warm; the API of a cluster that boots takes a while."""
    assert hands.run is not None
    deadline = hands.monotonic() + WARM_WITHIN_S
    failures = []
    for image in images:
        while why := hands.run(["unitctl", "images", "warm", image]):
            if hands.monotonic() >= deadline:
                failures.append(f"cannot run unitctl images warm {image}: {why}")
                break
            hands.sleep(WARM_PAUSE_S)
        else:
            tell(f"{image} is to be held warm")
    return failures
