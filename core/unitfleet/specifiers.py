"""systemd's `%` specifiers (systemd.unit(5)).

Those that follow from the unit's name are known anywhere; those of the host come in as a mapping from the letter
to its value, filled on the machine that runs the unit. One that is in neither stays as it is (`%{http_code}`,
`date +%F`), as systemd leaves letters it does not know; without a host `%H` stays too and is resolved later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from unitfleet.names import UnitName

# The system manager's own, the same on every host.
SYSTEM: Mapping[str, str] = {
    "t": "/run",
    "S": "/var/lib",
    "C": "/var/cache",
    "L": "/var/log",
    "E": "/etc",
    "T": "/tmp",
    "V": "/var/tmp",
    "h": "/root",
    "u": "root",
    "U": "0",
    "g": "root",
    "G": "0",
    "s": "/bin/sh",
}

# What only a host knows: architecture, boot id, credentials, host name, machine id, kernel, os-release fields.
HOST_LETTERS = "AabBdHlmMoqvwWyY"

_HOST_SPECIFIER = re.compile(f"%[{HOST_LETTERS}]")
_SPECIFIER = re.compile(r"%(.)", re.DOTALL)


class Specifiers:
    """Resolves the specifiers of one unit on one host (or, without `host`, on none yet)."""

    def __init__(self, unit: UnitName, host: Mapping[str, str] | None = None) -> None:
        self._hostless = host is None
        last = unit.prefix.rpartition("-")[2]
        self._values: dict[str, str] = {
            **SYSTEM,
            **(host or {}),
            "%": "%",
            "n": unit.full,
            "N": unit.name,
            "p": unit.prefix,
            "P": unescape(unit.prefix),
            "i": unit.instance,
            "I": unescape(unit.instance),
            "j": last,
            "J": unescape(last),
            "f": unescape_path(unit.instance or unit.prefix),
        }

    def resolve(self, text: str) -> str:
        """Replace every specifier that is known; one pass, so that `%%n` is the text `%n`."""
        return _SPECIFIER.sub(lambda match: self._values.get(match[1], match[0]), text)

    def awaits_host(self, resolved: str) -> bool:
        """Tell whether a resolved text still holds what only a host can fill in, and none is at hand."""
        return self._hostless and _HOST_SPECIFIER.search(resolved) is not None


def unescape(text: str) -> str:
    r"""Undo systemd-escape: `-` is `/`, `\xHH` a byte."""
    plain = text.replace("-", "/").encode("utf-8", "surrogatepass")
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match[1], 16)]), plain).decode(
        "utf-8", "replace"
    )


def unescape_path(text: str) -> str:
    """Undo `systemd-escape --path`: the result begins with `/`."""
    return "/" + unescape(text).strip("/")
