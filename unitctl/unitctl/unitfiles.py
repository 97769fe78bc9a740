"""Unit files on this host: which are meant by arguments, and their texts with drop-ins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitfleet import dropins, names, quadlet_files, systemd
from unitfleet.dropins import Merged
from unitfleet.errors import InvalidUnit
from unitfleet.podman import files, text
from unitfleet.podman.files import Made
from unitfleet.problems import Problems

LARGEST = 64 * 1024
STDIN = "-"

_TEXT = "a unit is a readable text file of at most 64 KiB in systemd's syntax"


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One file: its path as it was named, its own name (as an instance's, where one is meant), its unit's."""

    path: str
    filename: str
    unit: str

    @property
    def folder(self) -> str:
        """Where it lies, "" for the current one."""
        return os.path.dirname(self.path)


class Files:
    """The files of one command. Folders are listed once."""

    def __init__(self, arguments: Sequence[str], *, instance: str = "", name: str = "") -> None:
        """Find what arguments name: each file itself, of a folder all unit files in it and below.

        A template stands for its instance `instance`, where one is given; `name` is what standard input is called.
        """
        self._listed: dict[str, frozenset[str]] = {}
        self._made: dict[str, Made | None] = {}
        self.found = [_unit_file(path, instance, name) for argument in arguments for path in _paths(argument)]

    def read(self, file: UnitFile) -> Merged:
        """Return the text of a file, with its drop-ins and the files that it refers to; raises `InvalidUnit`."""
        if file.path == STDIN:
            return Merged(_decoded(sys.stdin.buffer.read(LARGEST + 1), "stdin"), (("stdin", 1),))
        more = self._drop_ins(file.folder, file.filename)
        merged = dropins.merge(file.path, read(Path(file.path)), more)
        if files.kind(file.filename) != "container":
            return merged
        refers = quadlet_files.references(systemd.read(merged.text, Problems()))
        parts = [part for filename in refers for part in self._appended(file, filename)]
        return dropins.merge(file.path, read(Path(file.path)), [*more, *parts]) if parts else merged

    def _appended(self, file: UnitFile, filename: str) -> list[tuple[str, str]]:
        """Return a file beside a unit, with its drop-ins, as it is put behind it; nothing where there is none."""
        path = self._paths_beside(file).get(filename)
        if path is None:
            return []
        parts = [(path, read(Path(path))), *self._drop_ins(os.path.dirname(path), filename)]
        return [(part, quadlet_files.appended(filename, text)) for part, text in parts]

    def beside(self, file: UnitFile) -> dict[str, Made]:
        """Return what the files of Quadlet's in its folder, and those of the command, turn into, by name."""
        turned = {name: self._turned(name, path) for name, path in self._paths_beside(file).items()}
        return {name: made for name, made in turned.items() if made is not None}

    def _paths_beside(self, file: UnitFile) -> dict[str, str]:
        paths = {other.filename: other.path for other in self.found if other.path != STDIN}
        if file.path != STDIN:
            paths |= {entry: os.path.join(file.folder, entry) for entry in self._entries(file.folder)}
        return {name: path for name, path in paths.items() if files.kind(name)}

    def _turned(self, filename: str, path: str) -> Made | None:
        if path not in self._made:
            try:
                self._made[path] = files.made(filename, text.parse(read(Path(path))))
            except (InvalidUnit, text.Refused):
                self._made[path] = None  # it is no unit, and what refers to it is told so
        return self._made[path]

    def _drop_ins(self, folder: str, filename: str) -> list[tuple[str, str]]:
        if not files.kind(filename):
            return []
        there = self._entries(folder)
        folders = [os.path.join(folder, name) for name in files.drop_in_folders(filename) if name in there]
        paths = dropins.chosen((found, self._entries(found)) for found in folders)
        return [(path, read(Path(path))) for path in paths]

    def _entries(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder or "."))
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]


def submitted(path: Path, unit: str) -> str:
    """Return the text that a unit of this name is submitted with, as `Files.read` does; raises `InvalidUnit`."""
    filename = f"{unit.removesuffix('.service')}.container" if path.suffix == ".container" else path.name
    return Files(()).read(UnitFile(str(path), filename, unit)).text


def read(path: Path) -> str:
    """Read one file; raises `InvalidUnit` for one that is no text or too large."""
    try:
        with path.open("rb") as file:
            return _decoded(file.read(LARGEST + 1), str(path))
    except OSError as error:
        raise InvalidUnit(f"cannot read {path}: {(error.strerror or str(error)).lower()}", hint=_TEXT) from error


def _decoded(raw: bytes, path: str) -> str:
    if len(raw) > LARGEST:
        raise InvalidUnit(f"cannot read {path}: it is larger than 64 KiB", hint=_TEXT)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidUnit(f"cannot read {path}: it is not UTF-8 text (byte {error.start})", hint=_TEXT) from error


def _unit_file(path: str, instance: str, name: str) -> UnitFile:
    filename = (name or "stdin.service") if path == STDIN else os.path.basename(path)
    stem, dot, ending = filename.rpartition(".")
    if instance and stem.endswith("@"):
        filename = f"{stem}{instance}{dot}{ending}"
    return UnitFile(path, filename, names.complete(filename))


def _paths(argument: str) -> Iterator[str]:
    if argument == STDIN or not os.path.isdir(argument):
        yield argument
        return
    for folder, folders, entries in os.walk(argument):
        folders.sort()
        for name in sorted(entries):
            if name.rpartition(".")[2] in names.SUFFIXES or files.kind(name):
                yield os.path.join(folder, name)
