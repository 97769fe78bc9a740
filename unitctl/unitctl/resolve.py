"""Which text a unit is submitted with, looked for as fleet did.

A unit that is registered is used as it is. Else its file in the directory named, in the current one, or in those
of `UNITCTL_UNITS` (colon-separated); else, for an instance, its registered template; else the template's file.
The instance gets the template's full text: a later change of the template does not touch it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitctl.arguments import registered
from unitctl.client import Api
from unitctl.unitfiles import submitted
from unitfleet import names
from unitfleet.api import UnitView
from unitfleet.errors import InvalidName, InvalidUnit, NotFound
from unitfleet.model import TargetState
from unitfleet.unitfile import spec_digest


@dataclass(frozen=True, slots=True)
class Source:
    """A unit as an argument named it: `text` None when the registered one is used."""

    name: str
    text: str | None = None
    path: str = ""  # of the file, or the template's name, that the text is of
    warning: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    name: str
    directories: tuple[Path, ...]


def resolve(api: Api, arguments: Sequence[str], env: Mapping[str, str], *, replace: bool) -> list[Source]:
    """Find every unit of a command; raises NotFound for the first that is neither registered nor a file here."""
    asked = {each.name: each for argument in arguments for each in _asked(api, argument, env)}
    templates = {template for name in asked if (template := template_of(name))}
    listed = api.known([*asked, *templates]).items
    views = {view.name: view for view in listed if view.target is not TargetState.DESTROYED}
    template_texts: dict[str, str] = {}
    return [_source(api, each, views, template_texts, replace=replace) for each in asked.values()]


def template_of(name: str) -> str:
    """The template of an instance, "" for any other unit."""
    parsed = names.parse(name)
    return parsed.template if parsed.is_instance else ""


def _source(
    api: Api, asked: _Asked, views: Mapping[str, UnitView], texts: dict[str, str], *, replace: bool
) -> Source:
    view, template = views.get(asked.name), template_of(asked.name)
    file = _file(asked.name, asked.directories)
    if view is not None and not replace:
        return Source(name=asked.name, warning=_difference(view, file))
    if file is not None:
        return Source(name=asked.name, text=submitted(file, asked.name), path=str(file))
    template_file = _file(template, asked.directories) if template else None
    if replace and template_file is not None:
        return Source(name=asked.name, text=submitted(template_file, asked.name), path=str(template_file))
    if template in views:
        if template not in texts:
            texts[template] = api.unit(template).text
        return Source(name=asked.name, text=texts[template], path=template)
    if template_file is not None:
        return Source(name=asked.name, text=submitted(template_file, asked.name), path=str(template_file))
    if view is not None:
        return Source(
            name=asked.name, warning=f"{asked.name} has no file here to replace it with; it stays as it is"
        )
    raise _not_found(api, asked, template)


def _asked(api: Api, argument: str, env: Mapping[str, str]) -> Iterator[_Asked]:
    """The units one argument names, each with the directories its file may be in."""
    head, slash, base = argument.rpartition("/")
    if not base or base in (".", ".."):
        raise InvalidName(
            f"cannot use {argument!r} as a unit: it is a directory", hint="name the unit files in it"
        )
    if slash:
        directories: tuple[Path, ...] = (Path(head or "/"),)
    else:
        directories = (Path("."), *(Path(path) for path in env.get("UNITCTL_UNITS", "").split(":") if path))
    for name in names.expand(base):
        if names.is_glob(name):
            yield from (_Asked(found, directories) for found in registered(api, [name]))
        else:
            yield _Asked(names.complete(name), directories)


def _file(name: str, directories: Sequence[Path]) -> Path | None:
    """The first file of this unit: x.service, or a Quadlet file x.container."""
    spellings = [name]
    if name.endswith(".service"):
        spellings.append(f"{name.removesuffix('.service')}.container")
    candidates = (directory / spelling for directory in directories for spelling in spellings)
    return next((path for path in candidates if path.exists()), None)


def _difference(view: UnitView, file: Path | None) -> str:
    try:
        if file is None or not file.is_file() or spec_digest(submitted(file, view.name)) == view.spec:
            return ""
    except InvalidUnit:
        return ""  # what is registered is used, and this file isn't
    return f"{view.name} is registered with another text than {file}; --replace submits the file"


def _not_found(api: Api, asked: _Asked, template: str) -> NotFound:
    places = ", ".join(str(directory.absolute()) for directory in asked.directories)
    also = f" or {template}" if template else ""
    looked = f"looked for {asked.name}{also} in {places}; give a path, or submit {template or asked.name} first"
    near = _nearest(api, asked.name)
    return NotFound(
        f"cannot find unit {asked.name}: neither registered nor a file here",
        hint=f"{near} Else: {looked}" if near else looked,
    )


def _nearest(api: Api, name: str) -> str:
    """The master's question for the registered unit with the nearest name, "" when none is near."""
    try:
        api.explain(name)
    except NotFound as error:
        if (error.hint or "").startswith("did you mean"):
            return error.hint or ""
    return ""
