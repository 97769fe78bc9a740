"""What the verbs take: durations, output formats, unit names with ranges and globs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from unitctl.context import Invocation
from unitctl.render import FORMATS, joined, say
from unitfleet import names
from unitfleet.api import UnitView
from unitfleet.errors import InvalidName, NotFound, UnitfleetError

if TYPE_CHECKING:
    from unitctl.client import Api

F = TypeVar("F", bound=Callable[..., Any])

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|)")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType[float]):
    """A duration in seconds: 30s, 2m, 1h30m, plain seconds, or infinity."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration; a wrong one is a usage error."""
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        if text in ("infinity", "inf", "never"):
            return math.inf
        parts = _DURATION.findall(text)
        if not parts or _DURATION.sub("", text).strip():
            self.fail(f"{value!r} is no duration: 30s, 2m, 1h30m or infinity", param, ctx)
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)


class UnitName(click.ParamType[str]):
    """A unit name, range or glob; the shell completes registered names."""

    name = "unit"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the registered units; an API that does not answer offers none."""
        from unitctl.client import connect

        try:
            listed = connect(ctx.find_object(Invocation) or Invocation()).units()
        except UnitfleetError:
            return []
        return [CompletionItem(view.name) for view in listed.items if view.name.startswith(incomplete)]


class MachineName(click.ParamType[str]):
    """A machine's name, id or unique prefix; the shell completes names."""

    name = "machine"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an argument that no machine can be called; of an option the empty word means any."""
        if not isinstance(param, click.Argument):
            return str(value)
        try:
            names.validate_machine_name(str(value))
        except InvalidName as error:
            self.fail(error.message, param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the machines; an API that does not answer offers none."""
        from unitctl.client import connect

        try:
            machines = connect(ctx.find_object(Invocation) or Invocation()).machines()[1]
        except UnitfleetError:
            return []
        return [CompletionItem(view.name) for view in machines if view.name.startswith(incomplete)]


def units_argument(function: F) -> F:
    """`UNIT...`: at least one."""
    return click.argument("units", metavar="UNIT...", nargs=-1, required=True, type=UnitName())(function)


def some_units_argument(function: F) -> F:
    """`[UNIT]...`: none means all."""
    return click.argument("units", metavar="[UNIT]...", nargs=-1, type=UnitName())(function)


def output_option(*formats: str) -> Callable[[F], F]:
    """`-o`: how the answer is written."""
    choice = click.Choice(formats or FORMATS)
    return click.option("-o", "--output", type=choice, default="table", help="How to write it; table by default.")


def table_options(function: F) -> F:
    """`-o`, `--fields` and `--no-legend` of the verbs that list."""
    fields = click.option("--fields", metavar="A,B", default="", help="Show these columns, in this order.")
    legend = click.option("--no-legend", is_flag=True, help="Leave out the line of titles.")
    return output_option()(fields(legend(function)))


def list_options(function: F) -> F:
    """What `table_options` are, and fleetctl's form of a list, for the lists that fleetctl has."""
    fields = click.option("--fields", metavar="A,B", default="", help="Show these columns, in this order.")
    legend = click.option("--no-legend", is_flag=True, help="Leave out the line of titles.")
    full = click.option("-l", "--full", is_flag=True, help="With -o fleet: don't cut ids and hashes.")
    return output_option(*FORMATS, "fleet")(fields(legend(full(function))))


def wait_options(function: F) -> F:
    """`--timeout` and `--no-block` of the verbs that wait."""
    timeout = click.option(
        "--timeout",
        type=Duration(),
        metavar="TIME",
        default="2m",
        show_default=True,
        help="Stop waiting after this long (30s, 2m, infinity); the work goes on.",
    )
    no_block = click.option("--no-block", is_flag=True, help="Give the command and don't wait for it to be done.")
    return timeout(no_block(function))


def spread(arguments: Sequence[str]) -> list[str]:
    """Expand ranges and take the name out of a path: units/adserver@<1..2> → adserver@1, adserver@2."""
    expanded = [name for argument in arguments for name in names.expand(argument.rpartition("/")[2])]
    return list(dict.fromkeys(expanded))


def registered(api: Api, arguments: Sequence[str], *, templates: bool = False) -> list[str]:
    """Full unit names for ranges, globs and plain names; what a glob finds is registered, a plain name may not be.

    A glob leaves templates alone unless `templates`: they neither run nor stop, and `destroy 'adserver@*'` means
    the instances. Raises NotFound for a glob that finds nothing.
    """
    found: list[str] = []
    for name in spread(arguments):
        if not names.is_glob(name):
            found.append(names.complete(name))
            continue
        fault = names.glob_fault(name)
        if fault is not None:
            raise InvalidName(f"cannot use pattern {name}: {fault}")
        matches = {view.name: view for pattern in _patterns(name) for view in api.units(pattern).items}
        kept = sorted(unit for unit, view in matches.items() if templates or not view.is_template)
        left = sorted(set(matches) - set(kept))
        if not kept:
            hint = (
                f"only a template matches: {joined(left)}; name it in full"
                if left
                else "see unitctl list-unit-files"
            )
            raise NotFound(f"cannot find a unit that matches {name}", hint=hint)
        if left:
            say(f"note: {joined(left)} matches {name} too and is left alone: name a template in full")
        found += kept
    return list(dict.fromkeys(found))


def matching(views: Iterable[UnitView], arguments: Sequence[str]) -> list[UnitView]:
    """Those of some units that the arguments of a list name; all without any. Raises NotFound."""
    listed = list(views)
    if not arguments:
        return listed
    kept: set[str] = set()
    for name in spread(arguments):
        patterns = _patterns(name) if names.is_glob(name) else (names.complete(name).replace("\\", "\\\\"),)
        found = {view.name for view in listed if any(names.glob_match(pattern, view.name) for pattern in patterns)}
        if not found:
            what = f"a unit that matches {name}" if names.is_glob(name) else f"unit {names.complete(name)}"
            raise NotFound(f"cannot find {what}", hint="see unitctl list-unit-files")
        kept |= found
    return [view for view in listed if view.name in kept]


def _patterns(pattern: str) -> tuple[str, ...]:
    """A glob without a suffix is meant for services too: adserver@? finds adserver@1.service."""
    return (pattern,) if "." in pattern else (pattern, f"{pattern}.service")
