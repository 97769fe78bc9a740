"""`Secret=`: which secrets a unit gets as files, where they appear and whose they are.

`Secret=NAME[,target=…][,uid=][,gid=][,mode=]`, in `[Container]` as Quadlet has it (`type=mount` alone), in
`[X-Fleet]` for a `[Service]` unit, whose files lie in `$CREDENTIALS_DIRECTORY` as by systemd's LoadCredential=.
"""

from __future__ import annotations

import re
from functools import partial

import msgspec

from unitfleet.drivers import PROCESS
from unitfleet.model import Requirements
from unitfleet.problems import BadValue, Problems, nearest
from unitfleet.section import Section, absolute
from unitfleet.spec import ContainerSpec, SecretSpec

MOST_BYTES = 64 * 1024
"""Of one secret's value."""

MOST_SECRETS = 32
"""Of one unit."""

IN_CONTAINER = "/run/secrets"

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z:_.@-]{0,127}")
_FIELDS = ("type", "target", "uid", "gid", "mode")
_MODE = re.compile(r"0?[0-7]{3}")
_ID = re.compile(r"[0-9]{1,9}")


def name_fault(name: str) -> str | None:
    """Return why a secret can't be called this, or None."""
    if not _NAME.fullmatch(name) or ".." in name:
        return "it must be 1 to 128 letters, digits and : _ . @ -, beginning with a letter or digit, without '..'"
    return None


def read(own: Section, xfleet: Section, container: ContainerSpec | None) -> tuple[SecretSpec, ...]:
    """Read the `Secret=` lines; `own` is `[Container]`. In the other kind of unit's section they are refused."""
    right, wrong = (own, xfleet) if container is not None else (xfleet, own)
    for option in wrong.listed("Secret"):
        wrong.problems.error(
            option.line, f"Secret= of this unit does not go into [{wrong.name}]", f"write it into [{right.name}]"
        )
    found = right.each("Secret", partial(_secret, contained=container is not None))
    taken = {mount.target for mount in container.mounts} if container is not None else set()
    lines = [option.line for option in right.listed("Secret")]
    if len(found) > MOST_SECRETS:
        right.problems.error(lines[-1], f"{len(found)} secrets", f"a unit takes at most {MOST_SECRETS}")
    for secret in found:
        if secret.target in taken:
            right.problems.error(
                lines[0], f"two mounts or secrets at {secret.target}", "add target= to one of them"
            )
        taken.add(secret.target)
    if container is not None:
        _check_owner(container, found, lines, right.problems)
    return found


def asked(needs: Requirements, secrets: tuple[SecretSpec, ...]) -> Requirements:
    """Return what the unit asks of a machine, its secrets included."""
    return msgspec.structs.replace(needs, secrets=tuple(sorted({secret.name for secret in secrets})))


def drivers(xfleet: Section, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the drivers that can hand a `[Service]` unit its secrets."""
    options = xfleet.listed("Secret")
    if not options:
        return chosen
    if PROCESS not in chosen:
        xfleet.problems.error(
            options[0].line,
            "Secret= needs the process driver, and this unit needs systemd",
            "leave out what only systemd can do, or describe a [Container]",
        )
    return (PROCESS,)


def _secret(text: str, contained: bool) -> SecretSpec:
    name, *parts = (part.strip() for part in text.strip('"').split(","))
    if fault := name_fault(name):
        raise BadValue(f"{name[:60]!r} is no name of a secret: {fault}")
    fields: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in _FIELDS or not value:
            hint = nearest(key, _FIELDS) or "allowed are " + ", ".join(f"{field}=" for field in _FIELDS)
            raise BadValue(f"{part[:40]!r} is not understood: {hint}")
        fields[key] = value
    kind = fields.get("type", "mount")
    if kind == "env":
        raise BadValue("type=env is refused: an environment is in `docker inspect` for all to read; read the file")
    if kind != "mount":
        raise BadValue(f"type={kind[:40]} is unknown: a secret is a file, type=mount")
    return SecretSpec(
        name=name,
        target=_target(fields.get("target", name), contained),
        uid=_number(fields, "uid"),
        gid=_number(fields, "gid"),
        mode=_mode(fields.get("mode", "0400")),
    )


def _target(text: str, contained: bool) -> str:
    if contained and "/" in text:
        return absolute(text)
    if not _NAME.fullmatch(text) or ".." in text:
        where = "a file name, or an absolute path" if contained else "the name of a file in $CREDENTIALS_DIRECTORY"
        raise BadValue(f"target={text[:60]} is not {where}")
    return f"{IN_CONTAINER}/{text}" if contained else text


def _number(fields: dict[str, str], key: str) -> int | None:
    text = fields.get(key)
    if text is not None and not _ID.fullmatch(text):
        raise BadValue(f"{key}={text[:40]} is no number: names of users are known in the image alone")
    return None if text is None else int(text)


def _mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise BadValue(f"mode={text[:40]} is no mode of a file: write mode=0400")
    return int(text, 8)


def _check_owner(
    container: ContainerSpec, secrets: tuple[SecretSpec, ...], lines: list[int], problems: Problems
) -> None:
    """Refuse a file that nobody knows how to give to its reader: the host can't look a name up in an image."""
    user = container.user.partition(":")[0]
    if user and not user.isdigit() and "%" not in user and any(secret.uid is None for secret in secrets):
        problems.error(
            lines[0],
            f"whose file Secret= is to be can't be told: User={user[:40]} is a name that its image alone knows",
            "add uid= (and gid=) with the number of that user",
        )
