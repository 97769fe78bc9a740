"""Configuration of the daemons: a TOML file < `UNITFLEET_*` variables < flags, all of the same names.

A daemon declares what it takes as a frozen dataclass and gets one back:

    @dataclass(frozen=True, slots=True)
    class AgentConfig:
        state_dir: Path = option("DIR", "where its state lives", Path("/var/lib/unitfleet/agent"))
        etcd: tuple[str, ...] = option("HOST:PORT,…", "etcd's endpoints", ("127.0.0.1:2379",))

    config = load("unit-agent", AgentConfig, sys.argv[1:], os.environ)

`state_dir` is `state-dir = "…"` in the file, `UNITFLEET_STATE_DIR`, and `--state-dir`. Fields may be `str`,
`int`, `float`, `bool`, `Path`, a `StrEnum`, `tuple[str, ...]` (a,b) and `dict[str, str]` (k=v,k=v; a table in
the file). A `__post_init__` that raises `InvalidConfig` checks what one field can't say of itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import sys
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from unitfleet.errors import InvalidConfig

C = TypeVar("C")

_PREFIX = "UNITFLEET_"


def option(metavar: str, text: str, default: Any) -> Any:
    """Declare a field: how its value is shown in the help, what it is, and what it is when nobody says."""
    metadata = {"metavar": metavar, "help": text}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class _Option:
    """A declared field: `name` as the file has it and the flags, `kind` its type."""

    field: str
    kind: Any
    metavar: str
    help: str
    default: Any

    @property
    def name(self) -> str:
        return self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        return _PREFIX + self.field.upper()


class _Parser(argparse.ArgumentParser):
    """argparse that raises where it would exit with a usage error."""

    def error(self, message: str) -> NoReturn:
        raise InvalidConfig(f"cannot read the command line: {message}", hint=f"see {self.prog} --help")


def load(program: str, kind: type[C], argv: Sequence[str], environ: Mapping[str, str]) -> C:
    """Return the effective configuration of `program`.

    `--help`, `--version` and `--check` print and raise `SystemExit(0)`. Raises `InvalidConfig` that names the
    file, variable or flag, what is allowed, and the nearest right word.
    """
    options = _options(kind)
    flags = _flags(program, kind, options, argv)
    path = flags.pop("config") or environ.get(_PREFIX + "CONFIG")
    check = flags.pop("check")
    values: dict[str, Any] = {}
    if path:
        values |= _from_file(Path(path), options)
    for item in options:
        if (given := environ.get(item.variable)) is not None:
            values[item.field] = _convert(item, given, item.variable)
        if (flag := flags[item.field]) is not None:
            values[item.field] = _convert(item, flag, f"--{item.name}")
    config = kind(**values)
    if check:
        print(render(config))
        raise SystemExit(0)
    return config


def render(config: object) -> str:
    """Write a configuration as the TOML that gives it back."""
    lines = []
    for item in _options(type(config)):
        lines.append(f"{item.name} = {toml(getattr(config, item.field))}")
    return "\n".join(lines)


def _options(kind: type) -> tuple[_Option, ...]:
    hints = typing.get_type_hints(kind)
    options = []
    for field in dataclasses.fields(kind):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        options.append(
            _Option(field.name, hints[field.name], field.metadata["metavar"], field.metadata["help"], default)
        )
    return tuple(options)


def _flags(program: str, kind: type, options: Sequence[_Option], argv: Sequence[str]) -> dict[str, Any]:
    parser = _Parser(prog=program, description=(kind.__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="TOML file with the names below, without the dashes")
    parser.add_argument("--check", action="store_true", help="check the configuration, print it and exit")
    parser.add_argument("--version", action="version", version=f"{program} {version('unitfleet')}")
    for item in options:
        shown = "" if item.default in ("", (), {}, False) else f" (default: {_text(item.default)})"
        text = (item.help + shown).replace("%", "%%")
        if item.kind is bool:
            parser.add_argument(
                f"--{item.name}", action=argparse.BooleanOptionalAction, default=None, help=text, dest=item.field
            )
        else:
            parser.add_argument(f"--{item.name}", metavar=item.metavar, help=text, dest=item.field)
    known, unknown = parser.parse_known_args(argv)
    for word in unknown:
        raise InvalidConfig(
            f"cannot read the command line: unknown flag or argument {word}",
            hint=_nearest(word.split("=")[0], [f"--{item.name}" for item in options], f"see {program} --help"),
        )
    return vars(known)


def _from_file(path: Path, options: Sequence[_Option]) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidConfig(f"cannot read {path}: {why}", hint="--config names the file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"cannot read {path}: {error}", hint='lines are like: name = "m1"') from error
    known = {item.name: item for item in options}
    values = {}
    for key, value in content.items():
        item = known.get(key.replace("_", "-"))
        if item is None:
            names = sorted(known)
            raise InvalidConfig(
                f"cannot use {path}: unknown key {key}",
                hint=_nearest(key, names, f"known keys: {', '.join(names)}"),
            )
        values[item.field] = _convert(item, value, f"{key} in {path}")
    return values


def _nearest(word: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else otherwise


def _convert(item: _Option, value: Any, source: str) -> Any:
    """Read a value as `item.kind`; `value` is text, or what TOML had."""
    try:
        return _converted(item.kind, value)
    except (ValueError, TypeError) as error:
        raise InvalidConfig(f"cannot use {source}: {error}") from error


def _converted(kind: Any, value: Any) -> Any:
    if kind is bool:
        return _boolean(value)
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not a number")
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a {'whole ' if kind is int else ''}number") from None
    if typing.get_origin(kind) is tuple:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{value!r} is not a list of words")
        return tuple(word.strip() for word in words if word.strip())
    if typing.get_origin(kind) is dict:
        return _table(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        allowed = [member.value for member in kind]
        if value not in allowed:
            raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return kind(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {
        "true": True,
        "yes": True,
        "1": True,
        "on": True,
        "false": False,
        "no": False,
        "0": False,
        "off": False,
    }
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError(f"{value!r} is neither true nor false")
    return known[value.lower()]


def _table(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [word.partition("=") for word in value.split(",") if word.strip()]
        for key, equals, _ in pairs:
            if not equals or not key.strip():
                raise ValueError(f"{key!r} is not key=value")
        return {key.strip(): text.strip() for key, _, text in pairs}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{value!r} is not a table of texts")
    return dict(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={text}" for key, text in value.items())
    return str(value)


def toml(value: Any) -> str:
    """Write a value as TOML: a truth, a number, text, a tuple or a table of texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml(word) for word in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{toml(key)} = {toml(text)}' for key, text in value.items())} }}"
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\u{ord(char):04x}"
        for char in str(value)
    )
    return f'"{escaped}"'


def fail(program: str, error: InvalidConfig) -> NoReturn:
    """Tell a person on stderr what is wrong with the configuration and exit 2."""
    print(f"{program}: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    raise SystemExit(2)
