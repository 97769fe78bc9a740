"""What we accept: a unit's name and text become a `UnitSpec`, or one refusal that lists every problem.

Three readings meet here: fleet's of `[X-Fleet]`, systemd's of `[Service]` and its kin, Quadlet's of
`[Container]`. Where fleet and systemd would silently drop something the author wrote, we refuse it with its line
and the right form; an unknown key of systemd's own sections is a warning, as systemd has it.

A text that begins with the line `AS_FLEET` came from a client of fleet's: its `[X-Fleet]` is read as fleet reads
it, and what we would refuse there is a warning. The line goes where the text goes, so that all read it alike.

A template is read leniently: a line whose value depends on the instance is judged when an instance is read. An
instance is read from its template's text under its own name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import lru_cache, partial

import msgspec

from unitfleet import (
    bandwidth,
    checks,
    drivers,
    limits,
    logkeys,
    names,
    options,
    podman_args,
    quadlet,
    quadlet_files,
    requirements,
    secretkey,
    service,
    systemd,
    unitfile,
    warmkey,
)
from unitfleet.command import swallowing_shell
from unitfleet.errors import InvalidUnit
from unitfleet.names import UnitName
from unitfleet.problems import Problem, Problems, Severity
from unitfleet.section import Section
from unitfleet.spec import KillMode, ResourceLimits, ServiceSpec, UnitSpec
from unitfleet.specifiers import Specifiers
from unitfleet.unitfile import XFLEET, Option, UnitFile

MAX_BYTES = 64 * 1024

AS_FLEET = "# unitfleet: [X-Fleet] is read as fleet reads it"
"""The first line of a text whose `[X-Fleet]` may hold what fleet ignored."""

_parsed = lru_cache(maxsize=64)(partial(unitfile.parse, max_line=None))  # instances of a template share a text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_INSTANCE = re.compile(r"%[iIjJfnN]")
# Unit types that are nothing without the section of their name.
_OWN_SECTION = frozenset("socket mount automount swap timer path".split())


def read(name: str, text: str, *, filename: str | None = None, host: Mapping[str, str] | None = None) -> UnitSpec:
    """Read a unit; `filename` (default: its name) stands in messages.

    `host` maps specifier letters to what they are on this machine (`{"H": "node-a"}`); without it `%H` and its
    kin stay for the machine that runs the unit. Raises `InvalidName`, or `InvalidUnit` with every problem as
    `file:line: what (hint)`.
    """
    shown = filename or name
    spec, found = examine(name, text, filename=filename, host=host)
    errors = tuple(problem.text(shown) for problem in found if problem.severity is Severity.ERROR)
    if errors or spec is None:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise InvalidUnit(f"cannot accept unit {name}: {errors[0]}{more}", errors)
    warnings = tuple(problem.text(shown) for problem in found if problem.severity is Severity.WARNING)
    return msgspec.structs.replace(spec, warnings=warnings)


def examine(
    name: str, text: str, *, filename: str | None = None, host: Mapping[str, str] | None = None
) -> tuple[UnitSpec | None, list[Problem]]:
    """Read a unit as `read` does, and return every problem beside it; None for what is no text at all."""
    unit = names.parse(name)
    problems = Problems()
    spec = None
    if _presentable(text, problems):
        spec = _read(unit, text, filename or name, Specifiers(unit, host), problems)
        _forgive(unit, text, problems)
        _excuse(text, problems)
    # what has a line is the cause of what is missing from the whole
    return spec, sorted(problems.found, key=lambda problem: problem.line or math.inf)


def read_kept(name: str, text: str) -> UnitSpec:
    """Return what `read` does, sooner where the text was read lately, under this name or one of its kind.

    Without a `%`, and without a file beside it that is a template, a text says the same to every instance of its
    template, but for the name.
    """
    unit = names.parse(name)
    if "%" in text or unit.is_template or "@.volume]" in text or "@.network]" in text:
        return _kept(name, text)
    try:
        kin = _kept(f"kin{'@1' if unit.instance else ''}.{unit.suffix}", text)
    except InvalidUnit:
        return read(name, text)  # which says so under its own name
    if kin.warnings:
        return _kept(name, text)
    needs = msgspec.structs.replace(kin.requirements, unit=unit.full)
    return msgspec.structs.replace(kin, name=unit.full, requirements=needs)


_kept = lru_cache(maxsize=1024)(read)


def _presentable(text: str, problems: Problems) -> bool:
    """Tell whether it is text at all; what follows would only produce noise if not."""
    length = len(text.encode("utf-8", "surrogatepass"))
    if length > MAX_BYTES:
        problems.error(0, f"the text has {length} bytes", f"a unit takes at most {MAX_BYTES}")
        return False
    for match in _CONTROL.finditer(text.replace("\r\n", "\n")):
        line = text.count("\n", 0, match.start()) + 1
        problems.error(line, f"control character {match[0]!a}", "a unit is plain UTF-8 text")
        return False
    return True


def _read(unit: UnitName, text: str, filename: str, specifiers: Specifiers, problems: Problems) -> UnitSpec:
    found = podman_args.expand(systemd.read(text, problems), problems)
    headers = systemd.sections(text)
    beside = quadlet_files.read(found, headers, specifiers, problems)
    found = quadlet_files.resolved(found, beside)
    file = _fleet_reading(text, found, problems)
    sections = {header for header, _ in headers}
    options.check_sections(headers, unit.suffix, problems)
    options.check_keys(found, unit.suffix, problems)

    about = Section("Unit", found, specifiers, problems)
    run = Section("Service", found, specifiers, problems)
    effective = ServiceSpec()
    container = None
    bounds = ResourceLimits()
    chosen = drivers.SYSTEMD
    if unit.suffix != "service":
        if unit.suffix in _OWN_SECTION and unit.suffix.capitalize() not in sections:
            problems.error(0, f"there is no [{unit.suffix.capitalize()}] section")
    elif options.CONTAINER in sections:
        effective = service.read(run, about, contained=True)
        container = quadlet.read(Section(options.CONTAINER, found, specifiers, problems), effective, beside)
        bounds = limits.read(run, container)
        chosen = drivers.for_container(run, about, problems)
        service.verify_restart(run, effective)
    elif filename.endswith(".container"):
        problems.error(0, "there is no [Container] section", "a .container file says what to run in it")
    elif "Service" in sections:
        effective = service.read(run, about)
        bounds = limits.read(run)
        service.verify(run, effective)
        service.verify_restart(run, effective)
        chosen = drivers.for_service(run, about, problems)
        _warn_of_shell(run, effective)
    else:
        problems.error(0, "there is neither a [Service] nor a [Container] section", "say what to run")
    xfleet = Section(XFLEET, found, specifiers, problems)
    if container is None:
        chosen = secretkey.drivers(xfleet, chosen)
    secrets = secretkey.read(Section(options.CONTAINER, found, specifiers, problems), xfleet, container)
    allowed = bandwidth.read(unit, file, chosen, container, problems)
    needs = requirements.read(unit, file, chosen, effective, container, problems)
    return UnitSpec(
        name=unit.full,
        description=about.text("Description"),
        requirements=secretkey.asked(limits.asked(bandwidth.asked(needs, allowed), bounds), secrets),
        service=effective,
        container=container,
        limits=bounds,
        bandwidth=allowed,
        check=checks.read(unit, found, effective, container, problems),
        on_failure=checks.on_failure(unit, found, problems),
        logs=logkeys.read(xfleet),
        secrets=secrets,
        warm=warmkey.read(xfleet, container),
        install=_install(Section("Install", found, specifiers, problems)),
    )


def _fleet_reading(text: str, found: tuple[Option, ...], problems: Problems) -> UnitFile:
    """Read [X-Fleet] as fleet does, and refuse a section that fleet and systemd read differently.

    A text that fleet can't read at all (a comment inside a continued line will do) is no fleet unit of old:
    systemd's reading stands.
    """
    try:
        file = _parsed(text)
    except unitfile.UnreadableUnit:
        return UnitFile(tuple(option for option in found if option.section == XFLEET))
    theirs = {(option.name, option.value) for option in file.options if option.section == XFLEET}
    ours = {(option.name, option.value): option.line for option in found if option.section == XFLEET}
    for (name, value), line in ours.items():
        if (name, value) not in theirs:
            problems.error(
                line,
                f"{name}={value[:40]} in [X-Fleet] is read in two ways",
                "no backslash at the end of a line or of the comment before it",
            )
    return file


def _forgive(unit: UnitName, text: str, problems: Problems) -> None:
    """Drop what is wrong with a template only because it has no instance yet."""
    if not unit.is_template:
        return
    open_lines = {option.line for option in systemd.read(text, Problems()) if _INSTANCE.search(option.value)}
    problems.found = [problem for problem in problems.found if problem.line not in open_lines]


def ignored(name: str, text: str) -> tuple[str, ...]:
    """Return what `read` would refuse of a text that it takes for fleet's sake, as `name:line: what (hint)`."""
    if not text.startswith(f"{AS_FLEET}\n"):
        return ()
    try:
        read(name, text.replace(AS_FLEET, "#", 1))
    except InvalidUnit as error:
        return error.problems
    return ()


def _excuse(text: str, problems: Problems) -> None:
    """Turn what is wrong in [X-Fleet] into warnings, where the text says that fleet's reading counts."""
    if not text.startswith(f"{AS_FLEET}\n"):
        return
    theirs = {option.line for option in systemd.read(text, Problems()) if option.section == XFLEET}
    problems.found = [
        dataclasses.replace(problem, severity=Severity.WARNING)
        if problem.line in theirs and not problem.final
        else problem
        for problem in problems.found
    ]


def _warn_of_shell(section: Section, spec: ServiceSpec) -> None:
    """Name a shell that alone gets the stop signal. With KillMode=control-group every process gets it."""
    option = section.last("ExecStart")
    if option is None or spec.kill_mode not in (KillMode.MIXED, KillMode.PROCESS):
        return
    for command in spec.start:
        shell = swallowing_shell(command.words)
        if shell is not None:
            section.problems.warn(
                option.line,
                f"{shell!r} gets the stop signal alone (KillMode={spec.kill_mode}) and does not pass it on",
                "put exec before the last command of the script, or KillMode=control-group",
            )


def _install(section: Section) -> tuple[str, ...]:
    """Return [Install] as `Key=unit` entries."""
    return tuple(
        f"{option.name}={word}"
        for name in ("Alias", "WantedBy", "RequiredBy", "Also")
        for option in section.listed(name)
        for word in section.words(option)
    )
