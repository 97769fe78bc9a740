"""Quadlet's files by their names: their kinds, what each is called once made, and the drop-ins of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unitfleet.podman.text import Refused, Text

GROUPS = {
    "container": "Container",
    "volume": "Volume",
    "network": "Network",
    "pod": "Pod",
    "image": "Image",
    "build": "Build",
    "kube": "Kube",
    "artifact": "Artifact",
}
"""The kinds of Quadlet's files by their endings, and the group of each."""

_SERVICE_SUFFIX = {"container": "", "kube": ""}  # of the others: -volume, -network, …


@dataclass(frozen=True, slots=True)
class Made:
    """What a file turns into: its service, and the container, volume, network, pod or image of it.

    `resource` is "" where it can't be told before the service runs.
    """

    service: str
    resource: str


def kind(filename: str) -> str:
    """Return the ending of a file of Quadlet's, "" for any other."""
    ending = filename.rpartition(".")[2]
    return ending if ending in GROUPS else ""


def made(filename: str, text: Text) -> Made:
    """Tell what a file turns into."""
    ending = kind(filename)
    group = GROUPS[ending]
    stem = _stem(filename)
    prefix, at, instance = stem.partition("@")
    service = text.text(group, "ServiceName") or prefix + _SERVICE_SUFFIX.get(ending, f"-{ending}") + at + instance
    match ending:
        case "container":
            resource = container_name(filename, text).replace("%N", service)
            resource = "" if "%" in resource else resource
        case "volume" | "network" | "pod":
            own = f"{prefix}-{instance or '%i'}" if at else stem
            resource = text.text(group, f"{group}Name") or f"systemd-{own}"
        case "image":
            resource = text.text(group, "ImageTag") or text.text(group, "Image")
        case "build":
            resource = next(iter(text.all(group, "ImageTag")), "")
        case _:
            resource = ""
    return Made(service, resource)


def container_name(filename: str, text: Text) -> str:
    """Return what a `.container` file's container is called, specifiers unresolved."""
    return text.text("Container", "ContainerName") or ("systemd-%p_%i" if "@" in filename else "systemd-%N")


def _stem(filename: str) -> str:
    stem, dot, _ = filename.rpartition(".")
    return stem if dot and stem else filename


def drop_in_folders(filename: str) -> list[str]:
    """Return the folders of a file's drop-ins, the nearest first; of files of one name the nearest counts.

    >>> drop_in_folders("web-api@1.container")[:3]
    ['web-api@1.container.d', 'web-api@.container.d', 'web-@.container.d']
    """
    stem, _, ending = filename.rpartition(".")
    name, at, instance = stem.partition("@")
    folders = [f"{ending}.d"]
    parts = name.split("-")
    for count in range(1, len(parts)):
        shortened = "-".join(parts[:count]) + "-"
        folders.append(f"{shortened}.{ending}.d")
        if at:
            folders.append(f"{shortened}@.{ending}.d")
    if instance:
        folders.append(f"{name}@.{ending}.d")
    return [f"{filename}.d", *reversed(folders)]


@dataclass(frozen=True, slots=True)
class Source:
    """A file to make a service of: its name, the folder it lies in, its text with its drop-ins merged."""

    filename: str
    folder: str
    text: Text
    siblings: Mapping[str, Made]  # the files beside it, by name

    @property
    def kind(self) -> str:
        """The ending."""
        return kind(self.filename)

    @property
    def group(self) -> str:
        """The group that is Quadlet's own."""
        return GROUPS[self.kind]

    @property
    def path(self) -> str:
        """Where it lies."""
        return f"{self.folder}/{self.filename}"

    def absolute(self, path: str) -> str:
        """Return a path as seen from the file's folder, but for one that begins with a specifier."""
        if path.startswith("/") or (path.startswith("%") and not path.startswith("%%")):
            return path
        return _clean(f"{self.folder}/{path}")

    def sibling(self, filename: str, missing: str) -> Made:
        """Return what a file beside this one turns into; refused as `missing` where there is none."""
        found = self.siblings.get(filename)
        if found is None:
            raise Refused(missing)
        return found


def _clean(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/" + "/".join(parts)
