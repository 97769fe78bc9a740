"""What a unit asks of a machine: `[X-Fleet]` in fleet's meaning and ours, with fleet's silent traps refused.

fleet ran a unit *anywhere* when it could not read a requirement. Here a value that fleet would have ignored, or
that can never be met, is an error that shows the right form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from unitfleet import names, timespan, wishkeys, xfleet
from unitfleet.demands import demands_of
from unitfleet.errors import InvalidName
from unitfleet.model import OnLoss, Requirements
from unitfleet.names import UnitName
from unitfleet.problems import BadValue, Problems, nearest
from unitfleet.quadlet import size
from unitfleet.spec import ContainerSpec, ServiceSpec, ServiceType
from unitfleet.unitfile import XFLEET, Option, UnitFile, quoted_values
from unitfleet.xfleet import XFleet

V = TypeVar("V")

MIN_CPU, MAX_CPU = 0.001, 4096.0
MIN_MEMORY, MAX_MEMORY = 1024**2, 64 * 1024**4
MIN_DISK, MAX_DISK = 1024**2, 1024**5

MAX_PATTERN = 512  # matched against every unit's name

_PIN = "write an id that unitctl list-machines -o wide shows"
NO_MACHINE = "(none)"
"""Where `MachineID=` without a value pins a unit, as in fleet: no machine is called that."""

_METADATA_KEY = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_./-]{0,127}")
_FALSE = frozenset(("false", "no", "0", "off", "f"))
_WORDS = {
    "MachineID": xfleet.MACHINE_ID,
    "Peers": xfleet.MACHINE_OF,
    "peer": xfleet.MACHINE_OF,
    "Global": xfleet.GLOBAL,
    "Conflicts": xfleet.CONFLICTS,
    "Replaces": xfleet.REPLACES,
}
_PAIR = re.compile(f"({'|'.join(_WORDS)}) cannot be used with ({'|'.join(_WORDS)})")


def read(
    unit: UnitName,
    file: UnitFile,
    drivers: tuple[str, ...],
    service: ServiceSpec,
    container: ContainerSpec | None,
    problems: Problems,
) -> Requirements:
    """Read what the scheduler is to know of a unit; what is wrong with it is added to `problems`."""
    options = [option for option in file.options if option.section == XFLEET]
    for option in options:
        _check(option, unit, problems)
    wants = xfleet.read(unit.full, file)
    _check_together(wants, options, problems)
    moves: tuple[OnLoss, float | None] = (OnLoss.MOVE, None)
    on_loss, after_s = _ours(options, unit, problems, "OnMachineLoss", _on_loss, moves)
    strict = _ours(options, unit, problems, "Singleton", _singleton, False)
    if strict and wants.is_global:
        line = next(option.line for option in options if option.name == "Singleton")
        problems.error(
            line, "Singleton=strict cannot be used with Global=", "a global unit runs once a machine", final=True
        )
    if wants.is_global:
        _refuse_with_global(options, problems)
    wanted, unwanted = _wanted_and_not(wants, options, problems)
    limit = container.memory if container is not None else 0
    _warn_of_local_data(container, options, problems)
    return Requirements(
        unit=unit.full,
        drivers=drivers,
        machine_id=_pin(wants),
        machine_of=wants.machine_of,
        metadata=wanted,
        metadata_not=unwanted,
        conflicts=wants.conflicts,
        replaces=wants.replaces,
        is_global=wants.is_global,
        cpu=_ours(options, unit, problems, "CPU", _cpu, 0.0),
        memory=_ours(options, unit, problems, "Memory", _memory, limit),
        disk=_ours(options, unit, problems, "Disk", _disk, 0),
        image="" if container is None else container.image,
        host_ports=() if container is None else tuple((p.host, p.protocol) for p in container.ports if p.host),
        container_name="" if container is None else container.container_name,
        demands=demands_of(service, container),
        spread=_ours(options, unit, problems, "Spread", _spread, ""),
        prefer=wishkeys.prefer(options, unit, _check_metadata, problems),
        avoid=wishkeys.avoid(options, unit, _check_pattern, problems),
        priority=_ours(options, unit, problems, "Priority", wishkeys.priority, 0),
        on_loss=on_loss,
        on_loss_after_s=after_s,
        oneshot=service.type is ServiceType.ONESHOT,
        strict=strict,
    )


def _pin(wants: XFleet) -> str:
    return "" if wants.machine_id is None else wants.machine_id or NO_MACHINE


def _check(option: Option, unit: UnitName, problems: Problems) -> None:
    """Refuse a value of fleet's keys that fleet ignores or that no machine can ever meet."""
    value = xfleet.expand(option.value, unit)
    key, line = option.name, option.line
    if "\n" in value:
        problems.error(line, f"{key}= is continued over several lines", f"repeat the key: one {key}= a line")
        return
    if key not in xfleet.KEYS:
        return
    if not value:
        problems.error(line, f"{key}= is empty", "leave the line out; an empty value resets nothing here")
        return
    values = quoted_values(value)
    if key in xfleet.METADATA:
        for pair in values:
            _check_metadata(key, pair, line, problems)
    elif key in xfleet.MACHINE_OF:
        for peer in values:
            _check_peer(key, peer, line, problems)
    elif key in xfleet.CONFLICTS:
        for pattern in (word for entry in values for word in entry.split()):
            _check_pattern(key, pattern, line, problems)
    elif key in xfleet.REPLACES:
        for entry in values:
            if len(entry.split()) > 1:
                quoted = " ".join(f'"{word}"' for word in entry.split())
                problems.error(line, f"{key}={entry[:60]} is one name with blanks in it", f"write {key}={quoted}")
            else:
                _check_pattern(key, entry, line, problems)
    elif key in xfleet.GLOBAL and values[-1].lower() not in xfleet.TRUE | _FALSE:
        problems.error(line, f"{key}={values[-1][:40]} is neither true nor false", "write true or false")
    elif key in xfleet.MACHINE_ID:
        try:
            names.validate_machine_id(values[0])
        except InvalidName:
            # fleet takes it, and the unit waits for ever; with blanks in it, it was meant to be something else
            never = problems.error if values[0].split() != [values[0]] else problems.warn
            never(line, f"{key}={values[0][:60]} is no machine's id: the unit would never be placed", _PIN)
        if len(values) > 1:
            problems.error(line, f"{key}= names {len(values)} machines", "a unit is pinned to one")


def _check_metadata(key: str, pair: str, line: int, problems: Problems) -> None:
    name, equals, value = pair.partition("=")
    name, sign = (name[:-1], "!=") if name.endswith("!") else (name, "=")
    words = pair.split()
    if len(words) > 1 and all(word.count("=") == 1 for word in words):
        quoted = " ".join(f'"{word}"' for word in words)
        problems.error(line, f"{key}={pair[:60]} would be one value with blanks in it", f"write {key}={quoted}")
    elif not equals or not name or not value or "=" in value:
        problems.error(line, f"{key}={pair[:60]} is no pair", f"write {key}=key=value")
    elif pair[0] in "'\"" or pair[-1] in "'\"":
        plain = "".join(character for character in pair if character not in "'\"")
        problems.error(line, f"{key}={pair[:60]} has quotes that would be part of it", f'write {key}="{plain}"')
    elif name != name.strip() or value != value.strip():
        problems.error(
            line,
            f"{key}={pair[:60]} has blanks around its '=' that would be part of it",
            f"write {key}={name.strip()}{sign}{value.strip()}",
        )


def _wanted_and_not(
    wants: XFleet, options: list[Option], problems: Problems
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Part what MachineMetadata= wants from what it does not: to fleet `zone!=a` is a key that ends in `!`."""
    wanted = {key: values for key, values in wants.metadata if not key.endswith("!")}
    unwanted = {key[:-1]: values for key, values in wants.metadata if key.endswith("!")}
    for key, values in unwanted.items():
        if key in wanted and set(wanted[key]) <= set(values):
            line = max(option.line for option in options if option.name in xfleet.METADATA)
            problems.error(line, f"no machine can have {key}={wanted[key][0]} and not have it", "leave out one")
    return tuple(wanted.items()), tuple(unwanted.items())


def _refuse_with_global(options: list[Option], problems: Problems) -> None:
    """Refuse what a unit that runs on every machine can't mean."""
    for option in options:
        if option.name in wishkeys.KEYS and option.value:
            problems.error(
                option.line, f"{option.name}= cannot be used with Global=", "a global unit runs on every machine"
            )


def _check_peer(key: str, peer: str, line: int, problems: Problems) -> None:
    words = peer.split()
    if len(words) > 1:
        quoted = " ".join(f'"{word}"' for word in words)
        problems.error(line, f"{key}={peer[:60]} is one name with blanks in it", f"write {key}={quoted}")
        return
    reason = names.fault(peer)
    if reason is not None:
        hint = "it takes exact names, no patterns" if names.is_glob(peer) else ""
        if names.fault(names.complete(peer)) is None:
            hint = hint or f"did you mean {names.complete(peer)}?"
        problems.error(line, f"{key}={peer[:60]} names no unit: {reason}", hint)


def _check_pattern(key: str, pattern: str, line: int, problems: Problems) -> None:
    reason = names.glob_fault(pattern)
    if len(pattern) > MAX_PATTERN:
        problems.error(
            line,
            f"{key}={pattern[:60]}… is too long",
            f"a pattern takes at most {MAX_PATTERN} characters",
            final=True,
        )
    elif reason is not None:
        problems.error(line, f"{key}={pattern[:60]} is no pattern: {reason}", "escape a literal [ as \\[")
    elif "[!" in pattern or "{" in pattern:
        problems.warn(
            line,
            f"{key}={pattern[:60]}: neither [!…] negates nor {{a,b}} chooses in these patterns",
            "write [^…], or one pattern for each choice",
        )
    elif not names.is_glob(pattern) and names.fault(pattern) is not None:
        full = names.complete(pattern)
        hint = f"did you mean {full}?" if names.fault(full) is None else ""
        problems.warn(line, f"{key}={pattern[:60]} matches no unit: {names.fault(pattern)}", hint)


def _check_together(wants: XFleet, options: list[Option], problems: Problems) -> None:
    pins = [option for option in options if option.name in xfleet.MACHINE_ID]
    if len({option.value for option in pins}) > 1:
        problems.error(
            pins[-1].line, f"{pins[-1].name}= pins the unit to a second machine", "a unit is pinned to one"
        )
    for message in xfleet.contradictions(wants):
        words = next((keys for word, keys in _WORDS.items() if word in message), ())
        lines = [option.line for option in options if option.name in words]
        found = _PAIR.fullmatch(message)
        if found is None:
            problems.error(lines[-1] if lines else 0, message, "leave out one of the two")
            continue
        one, other = (
            next((option.name for option in options if option.name in _WORDS[word]), word)
            for word in found.groups()
        )
        problems.error(
            lines[-1] if lines else 0, f"{one}= cannot be used with {other}=", "leave out one of the two"
        )


def _ours(
    options: list[Option],
    unit: UnitName,
    problems: Problems,
    key: str,
    parse: Callable[[str], V],
    default: V,
) -> V:
    """Read the last assignment to one of our keys; an empty one brings the default back."""
    for option in reversed(options):
        if option.name == key:
            value = xfleet.expand(option.value, unit).strip('"')
            if not value:
                return default
            try:
                return parse(value)
            except BadValue as error:
                problems.error(option.line, f"{key}=: {error}")
                return default
    return default


def _cpu(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text, re.ASCII) and MIN_CPU <= float(text) <= MAX_CPU:
        return float(text)
    raise BadValue(f"{text[:40]!r} is no number of cores from {MIN_CPU:g} to {MAX_CPU:g}: write 0.5 or 2")


def _memory(text: str) -> int:
    value = size(text)
    if not MIN_MEMORY <= value <= MAX_MEMORY:
        raise BadValue(f"{text[:40]!r} is not from 1M to 64T: write 512M or 2G")
    return value


def _disk(text: str) -> int:
    value = size(text)
    if not MIN_DISK <= value <= MAX_DISK:
        raise BadValue(f"{text[:40]!r} is not from 1M to 1P: write 10G")
    return value


def _spread(text: str) -> str:
    if not _METADATA_KEY.fullmatch(text):
        raise BadValue(f"{text[:40]!r} is no metadata key: write one that machines have, as Spread=zone")
    return text


def _singleton(text: str) -> bool:
    if text == "strict":
        return True
    raise BadValue(f"{text[:40]!r} is not strict: write Singleton=strict, or leave the line out")


def _on_loss(text: str) -> tuple[OnLoss, float | None]:
    word, colon, span = text.partition(":")
    if word == OnLoss.MOVE and not colon:
        return OnLoss.MOVE, None
    if word == OnLoss.WAIT:
        return OnLoss.WAIT, timespan.parse_finite(span) if colon else None
    hint = nearest(word, list(OnLoss))
    raise BadValue(f"{text[:40]!r} is none of move, wait, wait:30m" + (f": {hint}" if hint else ""))


def _warn_of_local_data(container: ContainerSpec | None, options: list[Option], problems: Problems) -> None:
    """Ask what is to become of a unit whose data stays on its machine."""
    if container is None or any(option.name == "OnMachineLoss" for option in options):
        return
    for mount in container.mounts:
        if mount.kind in ("bind", "volume") and mount.source and not mount.read_only:
            problems.warn(
                0,
                f"{mount.source}:{mount.target} keeps data on the machine, and the unit does not say what to do "
                "when that machine is lost",
                "write OnMachineLoss=wait to wait for it, or OnMachineLoss=move to start elsewhere without it",
            )
            return
