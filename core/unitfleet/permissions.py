"""What may be done with which keys of the store, in etcd's terms. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Access(enum.Enum):
    """Reading, writing (deleting too), or both; the numbers are etcd's."""

    READ = 0
    WRITE = 1
    BOTH = 2


@dataclass(frozen=True, slots=True)
class Permission:
    """Access to one key, or with `end` to all from `key` up to but not including it."""

    access: Access
    key: bytes
    end: bytes = b""

    @property
    def range(self) -> tuple[bytes, bytes]:
        """The keys that it is about: a role has one access to each range."""
        return self.key, self.end


def exactly(access: Access, key: str) -> Permission:
    """Access to one key."""
    return Permission(access, key.encode())


def under(access: Access, prefix: str) -> Permission:
    """Access to every key that begins with `prefix`; keys are ASCII, so the last byte can go up by one."""
    first = prefix.encode()
    return Permission(access, first, first[:-1] + bytes([first[-1] + 1]))
