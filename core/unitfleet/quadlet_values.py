"""Values that only some keys of `[Container]` take: how a container is confined, named and reached."""

from __future__ import annotations

import ipaddress
import json
import re

from unitfleet import names, quantities
from unitfleet.problems import BadValue
from unitfleet.section import Section, absolute

_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_PROFILE = re.compile(r"[a-zA-Z0-9_.:/-]{1,200}")
_LABEL = re.compile(r"[a-zA-Z0-9_.:,-]{1,200}")
_SYSCTL = re.compile(r"[a-z][a-zA-Z0-9_-]*([./][a-zA-Z0-9_*-]+)+")
_EXPOSED = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,64}(/[A-Za-z0-9_+-]{1,64}){0,3}")


def dollars(text: str) -> str:
    """Read `$$` as a dollar, as systemd would; any other `$` is the container's own affair."""
    return text.replace("$$", "$")


def json_words(text: str) -> tuple[str, ...]:
    """Read a JSON list of words; raises `BadValue`."""
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadValue(f'{text[:60]!r} is no list of words: write ["program", "argument"]')
    return tuple(dollars(word) for word in words)


def pairs(section: Section, name: str) -> tuple[tuple[str, str], ...]:
    """Read the `key=value` words of a list (Label=, Annotation=); what is none is left out with a warning."""
    found: dict[str, str] = {}
    for option in section.listed(name):
        for word in section.words(option):
            key, equals, value = word.partition("=")
            if equals and key:
                found[key] = value
                continue
            section.problems.warn(
                option.line,
                f"{name}=: {word[:40]!r} is no assignment and is left out",
                f'quote a value that has blanks: {name}="key=two words"',
            )
    return tuple(found.items())


def group(text: str) -> str:
    """Read a group by name or number; raises `BadValue`."""
    if text == "keep-groups":
        raise BadValue("'keep-groups' is podman's alone: name the groups by their numbers")
    if not _NAME.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is no group: write its number, or a name that the image knows")
    return text


def sysctl(text: str) -> tuple[str, str]:
    """Read `net.core.somaxconn=1024`; raises `BadValue`."""
    name, equals, value = text.partition("=")
    if not equals or not _SYSCTL.fullmatch(name):
        raise BadValue(f"{text[:60]!r} is no kernel parameter: write net.core.somaxconn=1024")
    return name, value


def profile(text: str) -> str:
    """Read the name of an AppArmor profile; raises `BadValue`."""
    if not _PROFILE.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is no profile's name")
    return text


def seccomp(text: str) -> str:
    """Read a seccomp profile's path, or unconfined; raises `BadValue`."""
    return text if text == "unconfined" else absolute(text)


def security_labels(section: Section) -> tuple[str, ...]:
    """Read SecurityLabel*= into the words of `--security-opt label=`."""
    found = ["disable"] if section.get("SecurityLabelDisable", quantities.boolean, False) else []
    for key, word in (("SecurityLabelType", "type"), ("SecurityLabelLevel", "level")):
        value = section.get(key, _label, "")
        found += [f"{word}:{value}"] if value else []
    return tuple(found)


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is no part of an SELinux label")
    return text


def masked(text: str) -> list[str]:
    """Read `/proc/a:/proc/b`; raises `BadValue`."""
    return [absolute(path) for path in text.split(":")]


def unmasked(text: str) -> list[str]:
    """Read ALL, or paths as `masked` does; raises `BadValue`."""
    return ["ALL"] if text.upper() == "ALL" else masked(text)


def exposed(text: str) -> str:
    """Read a port or a range of ports, of TCP when it is not said; raises `BadValue`."""
    match = _EXPOSED.fullmatch(text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if match is None or not 0 < low <= high <= 65535:
        raise BadValue(f"{text[:40]!r} is no port: write 80, 80/udp or 2000-2010/tcp")
    return f"{low}{f'-{high}' if high > low else ''}/{match[3] or 'tcp'}"


def ip(text: str) -> str:
    """Read an IPv4 address; raises `BadValue`."""
    return _address(text, 4)


def ip6(text: str) -> str:
    """Read an IPv6 address; raises `BadValue`."""
    return _address(text, 6)


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadValue(f"{text[:40]!r} is no IP address") from None
    if address.version != version:
        raise BadValue(f"{text[:40]!r} is no IPv{version} address")
    return str(address)


def word(text: str) -> str:
    """Read a word without blanks; raises `BadValue`."""
    if text.split() != [text] or len(text) > 253:
        raise BadValue(f"{text[:40]!r} is no single word")
    return text


def pod(text: str) -> str:
    """Read a pod's file, and return its name; raises `BadValue`."""
    name = text.removesuffix(".pod")
    if name == text or not _NAME.fullmatch(name):
        raise BadValue(f"{text[:60]!r} is no pod: write name.pod")
    return name


def zone(text: str) -> str:
    """Read a time zone; raises `BadValue`."""
    if not _ZONE.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is no time zone: write local, or a name as Europe/Vienna")
    return text


def auto_update(text: str) -> str:
    """Read registry or local; raises `BadValue`."""
    if text not in ("registry", "local"):
        raise BadValue(f"{text[:40]!r} is none of registry, local")
    return text


def service_name(text: str) -> str:
    """Read what a unit is called, without .service; raises `BadValue`."""
    reason = names.fault(f"{text}.service")
    if reason is not None:
        raise BadValue(f"{text[:60]!r} can't name a unit: {reason}")
    return text
