"""Registry credentials from this host's own file, in the form of Docker's config.json (`auths`).

They are read anew for each pull and handed to the Engine alone: never to the store, an event or a log.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

DOCKER_HUB = "docker.io"
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_ETC = Path("/etc/docker/config.json")


class Credentials:
    """Looks up what this host may show to a registry. `path` "": Docker's own places, the user's first."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._said = ""

    @property
    def file(self) -> Path | None:
        """The file that is read, None when there is none."""
        if self._path:
            return Path(self._path)
        home = os.environ.get("DOCKER_CONFIG") or (os.path.expanduser("~") + "/.docker")
        return next((path for path in (Path(home) / "config.json", _ETC) if path.is_file()), None)

    def find(self, registry: str) -> dict[str, str] | None:
        """Return what to show to `registry`, None when nothing is known. Reads a file."""
        path = self.file
        if path is None:
            return None
        try:
            found = lookup(json.loads(path.read_bytes()), registry)
        except OSError as error:
            self._say(f"could not read the registry credentials in {path}: {error.strerror}")
            return None
        except ValueError:  # whatever is wrong in there is not for a log
            self._say(f"could not use the registry credentials in {path}: no JSON of the form {{'auths': …}}")
            return None
        self._said = ""
        return found

    def _say(self, text: str) -> None:
        if text != self._said:
            logger.warning("%s", text)
        self._said = text


def lookup(config: Any, registry: str) -> dict[str, str] | None:
    """Return the entry of a config.json for a registry, as the Engine wants it; raises `ValueError`."""
    auths = config.get("auths", {}) if isinstance(config, Mapping) else None
    if not isinstance(auths, Mapping):
        raise ValueError("no auths")
    for name, entry in auths.items():
        if _host(str(name)) == registry and isinstance(entry, Mapping):
            return _entry(entry, str(name) if registry == DOCKER_HUB else registry)
    return None


def registry_of(image: str) -> str:
    """Return the registry that a reference names: its first part when that looks like a host (Docker's rule)."""
    head, slash, _ = image.partition("/")
    host = bool(slash) and ("." in head or ":" in head or head == "localhost")
    return DOCKER_HUB if not host or head in _HUB_NAMES else head


def qualified(image: str) -> str:
    """Return a reference with its registry in front, as `docker.io/library/app:1`."""
    if registry_of(image) != DOCKER_HUB or image.partition("/")[0] in _HUB_NAMES:
        return image
    return f"{DOCKER_HUB}/{image if '/' in image else f'library/{image}'}"


def _host(name: str) -> str:
    """Return the registry of a key: `https://index.docker.io/v1/` is docker.io, `https://reg:5/v2/` reg:5."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if host in _HUB_NAMES else host


def _entry(entry: Mapping[str, Any], address: str) -> dict[str, str] | None:
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"]), "serveraddress": address}
    user, password = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        try:
            decoded = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("auth is no base64") from None
        user, _, password = decoded.partition(":")
    if not user:
        return None
    return {"username": str(user), "password": str(password or ""), "serveraddress": address}
