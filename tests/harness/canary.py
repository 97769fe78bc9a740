"""A value that must be found nowhere: in which forms it is looked for, and where it was found."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path

VALUE = b"canary-" + os.urandom(12).hex().encode() + b"-\x00\xff"
"""Recognisable, new in each run, and no text."""

TEXT = VALUE[:-3].decode()


def forms(value: bytes = VALUE) -> list[bytes]:
    """Return its plain part as it is, in base64 at each of the three alignments, and in hex."""
    plain = value[: len(TEXT)]
    shifted = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in (0, 1, 2)]
    return [plain, *shifted, plain.hex().encode(), plain.hex().upper().encode()]


def found_in(raw: bytes) -> bool:
    """Tell whether the value is in there."""
    return any(form in raw for form in forms())


def traces(*folders: Path, spared: Iterable[Path] = ()) -> list[Path]:
    """Return every file below these folders that has the value in its name or content, but for those `spared`."""
    left_out = tuple(spared)
    found = []
    for folder in folders:
        assert folder.is_dir(), folder
        for path in folder.rglob("*"):
            if any(path.is_relative_to(one) for one in left_out):
                continue
            if found_in(str(path).encode()) or (path.is_file() and found_in(path.read_bytes())):
                found.append(path)
    return found
