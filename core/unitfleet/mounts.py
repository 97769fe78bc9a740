"""`Volume=`, `Mount=` and `Tmpfs=` of `[Container]`, in the Docker Engine's terms."""

from __future__ import annotations

import re

from unitfleet.problems import BadValue, nearest
from unitfleet.quantities import boolean, size
from unitfleet.section import absolute
from unitfleet.spec import MountSpec

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_PROPAGATION = frozenset("shared slave private rshared rslave rprivate".split())
_VOLUME_OPTIONS = frozenset(("ro", "rw", "z", "Z", "nocopy", *_PROPAGATION))
_QUADLET_UNITS = (".volume", ".image", ".build", ".container")


def volume(text: str) -> MountSpec:
    """Read `source:target[:options]` or a bare target; raises `BadValue`."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise BadValue(f"{text[:60]!r} is no volume: write source:target[:options]")
    source = parts[0] if len(parts) > 1 else ""
    target = absolute(parts[1] if len(parts) > 1 else parts[0])
    options = parts[2].split(",") if len(parts) == 3 else []
    for option in options:
        if option not in _VOLUME_OPTIONS:
            raise BadValue(f"unknown option {option!r}: allowed are {', '.join(sorted(_VOLUME_OPTIONS))}")
    return MountSpec(
        kind=_source_kind(source),
        source=source,
        target=target,
        read_only="ro" in options,
        options=tuple(option for option in options if option not in ("ro", "rw")),
    )


def tmpfs(text: str) -> MountSpec:
    """Read `path[:options]`; raises `BadValue`."""
    target, _, options = text.partition(":")
    words = tuple(option for option in options.split(",") if option)
    return MountSpec(kind="tmpfs", target=absolute(target), read_only="ro" in words, options=words)


def mount(text: str) -> MountSpec:
    """Read `type=bind,source=…,target=…[,ro]`, of type bind, volume or tmpfs; raises `BadValue`."""
    fields: dict[str, str] = {}
    options: list[str] = []
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        match key:
            case "type":
                fields["kind"] = value
            case "source" | "src":
                fields["source"] = value
            case "target" | "destination" | "dst":
                fields["target"] = value
            case "ro" | "readonly":
                fields["read_only"] = value if equals else "yes"
            case "rw":
                fields["read_only"] = "no" if not equals or boolean(value) else "yes"
            case "bind-propagation" if value in _PROPAGATION:
                options.append(value)
            case "tmpfs-size":
                options.append(f"size={size(value.upper())}")
            case "tmpfs-mode" if re.fullmatch("[0-7]{3,4}", value):
                options.append(f"mode={value}")
            case "volume-nocopy" | "nocopy":
                options.append("nocopy")
            case _:
                known = "type source target readonly rw bind-propagation tmpfs-size tmpfs-mode nocopy".split()
                hint = nearest(key, known)
                raise BadValue(f"{part[:40]!r} is not understood: {hint or 'allowed are ' + ', '.join(known)}")
    kind = fields.get("kind", "volume")
    if kind not in ("bind", "volume", "tmpfs"):
        raise BadValue(f"type={kind[:40]} is none of bind, volume, tmpfs")
    if "target" not in fields:
        raise BadValue("a mount needs target=")
    source = fields.get("source", "")
    if kind == "bind":
        absolute(source)
    elif kind == "tmpfs" and source:
        raise BadValue("a tmpfs has no source=")
    elif kind == "volume" and source and _source_kind(source) != "volume":
        raise BadValue(f"source={source[:60]} is a path: write type=bind")
    return MountSpec(
        kind=kind,
        source=source,
        target=absolute(fields["target"]),
        read_only=boolean(fields.get("read_only", "no")),
        options=tuple(options),
    )


def _source_kind(source: str) -> str:
    if source.startswith("/"):
        absolute(source)
        return "bind"
    if source.startswith("."):
        raise BadValue(f"{source[:60]!r} is relative to a folder that the machine does not have: write it from /")
    if source.endswith(_QUADLET_UNITS):
        raise BadValue(
            f"{source[:60]!r} refers to another Quadlet file, which is not beside this one: "
            "write the volume's name"
        )
    if source and not VOLUME_NAME.fullmatch(source):
        raise BadValue(f"{source[:60]!r} is neither an absolute path nor a volume's name")
    return "volume"
