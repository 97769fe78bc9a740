"""Secrets as files in memory: `<root>/<machine>/<encoded unit>/`, on a tmpfs or not at all.

A file appears whole, readable by its owner alone from its first byte. `SecretFiles` blocks; an agent calls it in
threads.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from unit_agent.driver import Order
from unit_agent.encoding import encode_name
from unit_agent.secrets.files import Account, SecretFile, account, files
from unitfleet.errors import DriverError

IN_MEMORY = ("tmpfs", "ramfs")
MOUNTS = "/proc/self/mountinfo"


class Delivery(Protocol):
    """Hands units the files of their secrets."""

    async def put(self, order: Order, values: Callable[[str], bytes]) -> Path:
        """Write a unit's files anew and return their directory; raises `DriverError` and leaves none then."""
        ...

    async def remove(self, unit: str) -> None:
        """Remove a unit's files; none there is fine."""
        ...

    async def sweep(self, known: Collection[str]) -> None:
        """Remove the files of every unit that is not known here: what was killed halfway may have left some."""
        ...


class NoDelivery:
    """Hands out nothing: units that name secrets are refused."""

    async def put(self, order: Order, values: Callable[[str], bytes]) -> Path:
        raise DriverError(f"cannot give {order.placement.unit} its secrets: this agent hands none out")

    async def remove(self, unit: str) -> None:
        """Nothing is there."""

    async def sweep(self, known: Collection[str]) -> None:
        """Nothing is there."""


class InMemory:
    """The `Delivery` of a host: `SecretFiles`, without holding the loop up."""

    def __init__(self, root: Path, machine: str) -> None:
        self._files = SecretFiles(root, machine)

    async def put(self, order: Order, values: Callable[[str], bytes]) -> Path:
        return await asyncio.to_thread(self._files.put, order, values)

    async def remove(self, unit: str) -> None:
        if self._files.directory(unit).exists():
            await asyncio.to_thread(self._files.remove, unit)

    async def sweep(self, known: Collection[str]) -> None:
        await asyncio.to_thread(self._files.sweep, known)


class SecretFiles:
    """Writes and removes the files of this machine's units, for `InMemory`."""

    def __init__(self, root: Path, machine: str, *, filesystem: Callable[[Path], str] | None = None) -> None:
        self._root = root
        self._own = root / machine
        self._filesystem = filesystem or filesystem_of

    def directory(self, unit: str) -> Path:
        """Return where the files of a unit are, if it has any."""
        return self._own / encode_name(unit)

    def put(self, order: Order, values: Callable[[str], bytes]) -> Path:
        unit = order.placement.unit
        try:
            whose = account(order.spec, (os.geteuid(), os.getegid()), _of_host)
            wanted = files(order.spec, whose)
            for file in wanted:
                _refuse_foreign(unit, file)
            directory = self._directory(unit, whose)
            for file in wanted:
                _write(directory, file, values(file.secret.name))
            for name in os.listdir(directory):
                if name not in {file.name for file in wanted}:
                    os.unlink(directory / name)
        except OSError as error:
            self.remove(unit)
            raise DriverError(f"cannot give {unit} its secrets: {error}") from error
        except DriverError:
            self.remove(unit)
            raise
        return directory

    def remove(self, unit: str) -> None:
        shutil.rmtree(self.directory(unit), ignore_errors=True)

    def sweep(self, known: Collection[str]) -> None:
        keep = {encode_name(unit) for unit in known}
        try:
            names = os.listdir(self._own)
        except OSError:
            return
        for name in names:
            if name not in keep:
                shutil.rmtree(self._own / name, ignore_errors=True)

    def _directory(self, unit: str, whose: Account) -> Path:
        self._root.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        for path in (self._root, self._own):
            if not path.exists():
                path.mkdir(mode=0o711)
                path.chmod(0o711)  # a unit's user passes through, whatever our umask is
            status = path.lstat()
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022 or not path.is_dir():
                raise DriverError(
                    f"cannot give {unit} its secrets: others can write to {path}", hint=f"remove {path}"
                )
        kind = self._filesystem(self._own)
        if kind not in IN_MEMORY:
            raise DriverError(
                f"cannot give {unit} its secrets: {self._root} is on a disk ({kind or 'unknown'}), not in memory",
                hint="give the agent a --secrets-dir on a tmpfs",
            )
        directory = self.directory(unit)
        directory.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(directory, *whose)
            directory.chmod(0o500)
        return directory


def filesystem_of(path: Path) -> str:
    """Return the type of the file system that holds `path`, as the kernel calls it; "" when it isn't told."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open(MOUNTS, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    return ""


def _refuse_foreign(unit: str, file: SecretFile) -> None:
    if os.geteuid() != 0 and (file.uid, file.gid) != (os.geteuid(), os.getegid()):
        raise DriverError(
            f"cannot give {unit} its secrets: {file.secret.name} is to belong to {file.uid}:{file.gid}, "
            "and the agent is not root",
            hint="run the agent as root, or say uid= and gid= of its own user",
        )


def _write(directory: Path, file: SecretFile, value: bytes) -> None:
    new = directory / f".{file.name[:200]}.new"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as writer:
        writer.write(value)
        if os.geteuid() == 0:
            os.fchown(descriptor, file.uid, file.gid)
        os.fchmod(descriptor, file.secret.mode)
    os.replace(new, directory / file.name)


def _of_host(user: str, group: str) -> Account:
    """Look an account up on this host; raises `DriverError`."""
    try:
        if not user:
            entry = pwd.getpwuid(os.geteuid())
        else:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        uid, gid = entry.pw_uid, entry.pw_gid
    except KeyError:
        if not user.isdigit():
            raise DriverError(f"cannot give a unit its secrets: this host has no user {user}") from None
        uid, gid = int(user), os.getegid()
    try:
        return uid, (int(group) if group.isdigit() else grp.getgrnam(group).gr_gid) if group else gid
    except KeyError:
        raise DriverError(f"cannot give a unit its secrets: this host has no group {group}") from None
