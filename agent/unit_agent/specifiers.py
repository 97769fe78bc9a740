"""What the `%` specifiers of unit texts are on this host (systemd.unit(5), "Specifiers"; as of systemd 252).

They are what systemd would put there, so that a unit reads the same under every driver: `%H` is the host's own
name and `%m` its /etc/machine-id; the machine's name in the cluster is in `$UNITFLEET_MACHINE`.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from unitfleet.environment import parse_file

_ARCHITECTURES = {
    "x86_64": "x86-64",
    "i686": "x86",
    "i386": "x86",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "ppc64le": "ppc64-le",
}
_RELEASE_FIELDS = {
    "o": "ID",
    "w": "VERSION_ID",
    "W": "VARIANT_ID",
    "B": "BUILD_ID",
    "M": "IMAGE_ID",
    "A": "IMAGE_VERSION",
}


def of_host(machine_id: str, boot_id: str, root: Path = Path("/")) -> dict[str, str]:
    """Return what only this host knows, by letter; its files are read under `root`.

    `machine_id` stands in where the host has no /etc/machine-id.
    """
    kernel = os.uname()
    release = _assignments(root / "etc/os-release") or _assignments(root / "usr/lib/os-release")
    return {
        "H": kernel.nodename,
        "l": kernel.nodename.partition(".")[0],
        "q": _assignments(root / "etc/machine-info").get("PRETTY_HOSTNAME") or kernel.nodename,
        "m": _text(root / "etc/machine-id").strip() or machine_id,
        "b": boot_id.replace("-", ""),
        "v": kernel.release,
        "a": _ARCHITECTURES.get(kernel.machine, kernel.machine),
        **{letter: release.get(field, "") for letter, field in _RELEASE_FIELDS.items()},
    }


def of_account(uid: int, gid: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what differs under an agent that is not root, as under systemd's user manager; nothing for root."""
    if uid == 0:
        return {}
    try:
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
    except KeyError:
        name, home, shell = str(uid), "/", ""
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    home = environ.get("HOME") or home
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return {
        "u": name,
        "U": str(uid),
        "g": group,
        "G": str(gid),
        "h": home,
        "s": shell or "/bin/sh",
        "t": environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}",
        "C": environ.get("XDG_CACHE_HOME") or f"{home}/.cache",
        "E": config,
        "S": config,
        "L": f"{config}/log",
        "T": environ.get("TMPDIR") or "/tmp",
        "V": environ.get("TMPDIR") or "/var/tmp",
    }


def _assignments(path: Path) -> dict[str, str]:
    return dict(parse_file(_text(path)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
