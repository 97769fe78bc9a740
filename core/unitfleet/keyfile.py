"""Keys and tokens in files that only their owner can read."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from unitfleet.errors import InvalidConfig

BITS = 256


def read(path: Path, hint: str) -> str:
    """Return the key in `path`, which was made elsewhere. Raises `InvalidConfig`."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot use {path}: {error}", hint=hint) from error
    if not key:
        raise InvalidConfig(f"cannot use {path}: it is empty", hint=hint)
    return key


def read_or_make(path: Path) -> str:
    """Return the secret in `path`; make one, 0600, if the file is missing. Raises `InvalidConfig`.

    Two masters of one host may start at once with the same path: the file appears whole, and once.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
        mode = path.stat().st_mode
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidConfig(
            f"cannot use {path}: {why}", hint="give --state-dir a directory that this user can write"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"cannot use {path}: it is no text", hint=f"rm {path}") from error
    if mode & 0o077:
        raise InvalidConfig(f"cannot use {path}: others can read it", hint=f"chmod 600 {path}")
    if len(secret) < 16 or not secret.isprintable() or " " in secret:
        raise InvalidConfig(f"cannot use {path}: it holds no secret of 16 characters or more", hint=f"rm {path}")
    return secret


def read_or_make_private(path: Path) -> str:
    """Return the private key in `path`, made if the file is missing: any 256 random bits are one (X25519).

    Raises `InvalidConfig`.
    """
    key = read_or_make(path)
    if not re.fullmatch(f"[0-9a-f]{{{BITS // 4}}}", key):
        raise InvalidConfig(
            f"cannot use {path}: it holds no private key of {BITS // 4} hexadecimal digits",
            hint="copy the file of another master; a new one can't open what was sealed to it",
        )
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(BITS // 8) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another master was quicker: its secret counts
    finally:
        os.unlink(draft)
