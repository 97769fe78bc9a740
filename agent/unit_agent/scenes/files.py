"""The records of kept copies: `<state_dir>/scenes/<encoded unit>/<id>.json`, with a directory `<id>/` for files.

Everything here blocks; the duty calls it in threads.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec

from unit_agent.encoding import encode_name
from unitfleet import wholefile
from unitfleet.api import Scene

logger = logging.getLogger(__name__)


class SceneFiles:
    """The records under one directory, readable by this user alone."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def load(self) -> list[Scene]:
        """Return every record; one that can't be read is left where it is, and said."""
        found = []
        for path in sorted(self._root.glob("*/*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Scene))
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                logger.warning("could not read %s: %s", path, error)
        return found

    def directory(self, scene: Scene) -> Path:
        """Return where the scene's files go, made."""
        path = self._path(scene).with_suffix("")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def save(self, scene: Scene) -> None:
        """Write a record, whole or not at all. Raises OSError."""
        path = self._path(scene)
        wholefile.replace(path, msgspec.json.encode(scene))

    def remove(self, scene: Scene) -> None:
        """Remove a record and its files; nothing there is fine."""
        path = self._path(scene)
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink(missing_ok=True)
        if path.parent.exists() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def _path(self, scene: Scene) -> Path:
        return self._root / encode_name(scene.unit) / f"{scene.id}.json"
