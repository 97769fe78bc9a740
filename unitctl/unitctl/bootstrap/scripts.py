"""The two small scripts that a host runs: one at its first boot, one at each boot."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from unitctl.bootstrap.hostplan import PATH
from unitfleet.problems import BadValue

FIRST_BOOT = "/etc/unitfleet/first-boot.sh"
EACH_BOOT = "/var/lib/cloud/scripts/per-boot/unitfleet"

_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")
_LOCAL = "/var/cache/unitfleet/unitfleet.deb"


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package: an absolute path on the host, or a URL; `sha256` is checked after a download."""

    place: str
    sha256: str = ""

    @property
    def is_url(self) -> bool:
        """Tell whether the host fetches it."""
        return "://" in self.place


def package(text: str) -> Package:
    """Read `/path/on/the/host.deb` or `https://host/name.deb#sha256=…`; raises `BadValue`."""
    if text.startswith("/"):
        if not text.endswith(".deb") or not text.isprintable():
            raise BadValue(f"{text!r} is no Debian package: its name ends in .deb")
        return Package(text)
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise BadValue(f"{text!r} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        raise BadValue(f"{text!r} is neither an absolute path on the host nor an http or https URL")
    if parts.username or parts.password:
        raise BadValue("it carries credentials, and user-data is read by everybody on the host")
    if not parts.fragment:
        return Package(text)
    match = _SHA256.fullmatch(parts.fragment)
    if match is None:
        raise BadValue(f"#{parts.fragment} is no checksum: write #sha256= and 64 hex digits")
    return Package(text.partition("#")[0], match[1])


def first_boot(wanted: Package | None, services: Sequence[str]) -> str:
    """The script of the first boot: installs what is missing, then applies the plan or starts the services."""
    lines = [
        "#!/bin/sh",
        "# Installs Unitfleet and starts it. Run again, it changes nothing that is as it should be.",
        "set -eu",
        "export DEBIAN_FRONTEND=noninteractive",
    ]
    if wanted is not None:
        lines += ["if ! command -v unitctl >/dev/null; then", *(f"    {line}" for line in _install(wanted)), "fi"]
    lines += ["command -v unitctl >/dev/null || { echo 'unitfleet is not installed on this host' >&2; exit 1; }"]
    if services:
        lines += ["systemctl daemon-reload", *(f"systemctl enable --now {service}" for service in services)]
    else:
        lines += [f"exec unitctl bootstrap apply {PATH}"]
    return "\n".join(lines) + "\n"


def each_boot() -> str:
    """The script of each boot: the plan again, for what has changed since; nothing before there is unitctl."""
    return f"#!/bin/sh\ncommand -v unitctl >/dev/null || exit 0\nexec unitctl bootstrap apply {PATH}\n"


def _install(wanted: Package) -> list[str]:
    # Our settings stand already: dpkg must not ask about them.
    keep = "-o Dpkg::Options::=--force-confold"
    if not wanted.is_url:
        return ["apt-get update -q", f"apt-get install -q -y {keep} {shlex.quote(wanted.place)}"]
    # By Python, which cloud-init is written in: a small image has no curl.
    fetch = "import socket, sys, urllib.request as u; socket.setdefaulttimeout(60); u.urlretrieve(*sys.argv[1:])"
    lines = [
        f"mkdir -p {_LOCAL.rpartition('/')[0]}",
        f"python3 -c '{fetch}' {shlex.quote(wanted.place)} {_LOCAL}",
    ]
    if wanted.sha256:
        lines.append(f"echo '{wanted.sha256}  {_LOCAL}' | sha256sum -c -")
    return [*lines, "apt-get update -q", f"apt-get install -q -y {keep} {_LOCAL}"]
