"""`Volume=x.volume` and `Network=x.network`: the files that a unit refers to, which are a part of its text.

A machine gets nothing but the unit's text. So unitctl puts each `.volume` and `.network` file that a unit refers
to behind it, as a section `[X-Volume x.volume]` with the assignments of that file's own section, which systemd and
Quadlet pass over. Here they are read, and what refers to the file names the volume or network itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from unitfleet import quantities
from unitfleet.mounts import VOLUME_NAME
from unitfleet.problems import BadValue, Problems, nearest
from unitfleet.quadlet_keys import KEYS, Handling
from unitfleet.quadlet_values import pairs, word
from unitfleet.section import Section
from unitfleet.spec import NetworkSpec, SubnetSpec, VolumeSpec
from unitfleet.specifiers import Specifiers
from unitfleet.unitfile import Option

BRIDGE_NAME = "com.docker.network.bridge.name"

_HEADER = re.compile(r"X-(Volume|Network) ([a-zA-Z0-9_][a-zA-Z0-9_.@-]*\.(volume|network))")
_REFERENCE = re.compile(r"(?:^|(?<=[=,:]))([a-zA-Z0-9_][a-zA-Z0-9_.@-]*\.(?:volume|network))(?=[:,]|$)")
_SECTION = re.compile(r"\s*\[([^\[\]]+)\]\s*")
_REFERRING = {"Volume": ".volume", "Mount": ".volume", "Network": ".network"}


@dataclass(frozen=True, slots=True)
class Beside:
    """The files of one unit, by their names."""

    volumes: dict[str, VolumeSpec]
    networks: dict[str, NetworkSpec]

    def name(self, filename: str) -> str | None:
        """Return what a file's volume or network is called; None for a file that is not there."""
        found = self.volumes.get(filename) or self.networks.get(filename)
        return None if found is None else found.name


NOTHING = Beside({}, {})


def header(filename: str) -> str:
    """Return the section that a file is put behind its unit as."""
    return f"X-{filename.rpartition('.')[2].capitalize()} {filename}"


def references(options: Iterable[Option]) -> list[str]:
    """Return the `.volume` and `.network` files that a unit refers to, each once."""
    found = [name for option in options for name in _referred(option)]
    return list(dict.fromkeys(found))


def _referred(option: Option) -> list[str]:
    ending = _REFERRING.get(option.name) if option.section == "Container" else None
    return [name for name in _REFERENCE.findall(option.value) if ending and name.endswith(ending)]


def read(
    options: tuple[Option, ...], headers: Iterable[tuple[str, int]], specifiers: Specifiers, problems: Problems
) -> Beside:
    """Read the sections of a unit's text that are files; what is wrong with them is added to `problems`."""
    found = Beside({}, {})
    for name in dict(headers):
        match = _HEADER.fullmatch(name)
        if match is None or match[1].lower() != match[3]:
            continue
        section = Section(name, options, specifiers, problems)
        made = read_one(match[1], section, match[2])
        if isinstance(made, VolumeSpec):
            found.volumes[match[2]] = made
        else:
            found.networks[match[2]] = made
    return found


def read_one(group: str, section: Section, filename: str) -> VolumeSpec | NetworkSpec:
    """Read the section of one file, `[Volume]` or `[Network]`."""
    check_keys(group, section.options, section.problems)
    return _volume(section, filename) if group == "Volume" else _network(section, filename)


def appended(filename: str, text: str) -> str:
    """Return the text of a file with its headers as they stand behind a unit; every line stays a line."""
    own = filename.rpartition(".")[2].capitalize()
    lines = text.split("\n")
    for index, line in enumerate(lines):
        match = _SECTION.fullmatch(line)
        if match is not None and not (index and lines[index - 1].endswith("\\")):
            lines[index] = f"[{header(filename)}]" if match[1] == own else f"[X-{match[1]} {filename}]"
    return "\n".join(lines)


def check_keys(group: str, options: Iterable[Option], problems: Problems) -> None:
    """Say of each key of `[Volume]` or `[Network]` whether it has an effect."""
    keys = KEYS[group]
    for option in options:
        key = keys.get(option.name)
        if key is None:
            if not option.name.startswith("X-"):
                hint = nearest(option.name, keys)
                problems.error(option.line, f"unknown key {option.name!r} in [{group}]", hint)
        elif key.handling is Handling.IMPOSSIBLE:
            problems.error(option.line, f"{key.name}= is not possible here: {key.ours}", key.hint)
        elif key.handling is Handling.LIMITED and option.value:
            problems.warn(option.line, f"{key.name}=: {key.ours}", key.hint)


def resolved(options: tuple[Option, ...], beside: Beside) -> tuple[Option, ...]:
    """Put the names of volumes and networks in the place of the files that are beside the unit."""

    def named(match: re.Match[str]) -> str:
        return beside.name(match[1]) or match[1]

    return tuple(
        replace(option, value=_REFERENCE.sub(named, option.value)) if _referred(option) else option
        for option in options
    )


def _stem(filename: str, specifiers: Specifiers) -> str:
    prefix, at, instance = filename.rpartition(".")[0].partition("@")
    return f"systemd-{prefix}-{instance or specifiers.resolve('%i')}" if at else f"systemd-{prefix}"


def _volume(section: Section, filename: str) -> VolumeSpec:
    options = {key: section.get(key.capitalize(), word, "") for key in ("device", "type")}
    mount = [
        f"{name}={owner}"
        for name, keys in (("uid", ("UID", "User")), ("gid", ("GID", "Group")))
        if (owner := section.get(keys, _owner, ""))
    ]
    mount += [more] if (more := section.get("Options", word, "")) else []
    options["o"] = ",".join(mount)
    for key in ("Type", "Options"):
        option = section.last(key)
        if option is not None and not options["device"]:
            section.problems.error(option.line, f"{key}= without Device=", "say what is mounted: Device=")
    return VolumeSpec(
        name=section.get("VolumeName", _name, _stem(filename, section.specifiers)),
        driver=section.get("Driver", _driver, "local"),
        options=tuple((key, value) for key, value in options.items() if value),
        labels=pairs(section, "Label"),
        copy_up=section.get("Copy", quantities.boolean, True),
    )


def _network(section: Section, filename: str) -> NetworkSpec:
    interface = section.get("InterfaceName", word, "")
    return NetworkSpec(
        name=section.get("NetworkName", _name, _stem(filename, section.specifiers)),
        driver=section.get("Driver", _network_driver, "bridge"),
        ipam_driver=section.get("IPAMDriver", word, ""),
        subnets=_subnets(section),
        internal=section.get("Internal", quantities.boolean, False),
        ipv6=section.get("IPv6", quantities.boolean, False),
        options=(*pairs(section, "Options"), *([(BRIDGE_NAME, interface)] if interface else [])),
        labels=pairs(section, "Label"),
    )


def _subnets(section: Section) -> tuple[SubnetSpec, ...]:
    subnets = section.each("Subnet", _subnet)
    gateways, ranges = section.each("Gateway", _address), section.each("IPRange", _subnet)
    for key, found in (("Gateway", gateways), ("IPRange", ranges)):
        if len(found) > len(subnets):
            line = section.listed(key)[-1].line
            said = f"{len(found)} {key}= with {len(subnets)} Subnet="
            section.problems.error(line, said, "give each its Subnet=")
    return tuple(
        SubnetSpec(subnet=subnet, gateway=_at(gateways, index), ip_range=_at(ranges, index))
        for index, subnet in enumerate(subnets)
    )


def _at(values: tuple[str, ...], index: int) -> str:
    return values[index] if index < len(values) else ""


def _parsed(parse: Callable[[str], object], what: str, text: str) -> str:
    try:
        return str(parse(text))
    except ValueError:
        raise BadValue(f"{text[:60]!r} is no {what}") from None


_subnet = partial(_parsed, ipaddress.ip_network, "subnet: write 10.1.0.0/24")
_address = partial(_parsed, ipaddress.ip_address, "IP address")


def _name(text: str) -> str:
    if not VOLUME_NAME.fullmatch(text):
        raise BadValue(f"{text[:60]!r} is no name of a volume or network")
    return text


def _owner(text: str) -> str:
    """Read who owns a volume, by number: names are the image's own, but for root's."""
    return "0" if text == "root" else str(quantities.whole(text, 0, 2**32 - 2))


def _driver(text: str) -> str:
    if text == "image":
        raise BadValue("'image' is podman's alone: the Docker Engine makes no volume of an image")
    return word(text)


def _network_driver(text: str) -> str:
    if text not in ("bridge", "macvlan", "ipvlan"):
        raise BadValue(f"{text[:40]!r} is none of bridge, macvlan, ipvlan")
    return text
