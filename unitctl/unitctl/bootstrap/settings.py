"""The settings of `unit-agent` and `unit-master`, so that a wrong value is refused here and not at a host's boot.

The command line rests on the core alone, never on the daemons; this table says what their own declarations say,
and `tests/unit/test_bootstrap_settings.py` holds it to them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from unitfleet import quantities
from unitfleet.config import toml
from unitfleet.errors import InvalidConfig, InvalidName
from unitfleet.listening import split_address
from unitfleet.names import validate_machine_name
from unitfleet.problems import BadValue, nearest
from unitfleet.profiles import Profile
from unitfleet.quadlet import image_reference
from unitfleet.rates import rate
from unitfleet.timespan import parse_finite

Value = bool | int | str | tuple[str, ...] | dict[str, str]

_METADATA_KEY = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.:/@-]*")
_UNSAFE = re.compile(r"[\s,\"'=\\]")


@dataclass(frozen=True, slots=True)
class Setting:
    """How a setting is written, and what is wrong with a value (a `BadValue`) beyond its form."""

    kind: type = str
    check: Callable[[Any], None] = lambda value: None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon's settings by name. `agree` looks at what settings say together."""

    name: str
    settings: Mapping[str, Setting]
    agree: Callable[[Mapping[str, Value]], None] = field(default=lambda values: None)

    def read(self, name: str, value: object) -> Value:
        """Return a value as TOML has it, from text or from TOML; raises `InvalidConfig`."""
        setting = self.settings.get(name)
        if setting is None:
            known = ", ".join(sorted(self.settings))
            hint = nearest(name, self.settings) or f"settings: {known}"
            raise InvalidConfig(f"cannot use {self.name}.{name}: unit-{self.name} has no such setting", hint=hint)
        try:
            read = _READ[setting.kind](value)
            setting.check(read)
        except (BadValue, ValueError, InvalidConfig, InvalidName) as error:
            said = isinstance(error, InvalidConfig | InvalidName)
            why = str(error).partition(": ")[2] if said else str(error)
            raise InvalidConfig(f"cannot use {self.name}.{name}: {why}", hint=setting.hint or None) from error
        return read

    def write(self, values: Mapping[str, Value]) -> str:
        """Return the TOML file of some settings, each a line."""
        return "".join(f"{name} = {toml(value)}\n" for name, value in values.items())


def metadata_pair(text: str) -> tuple[str, str]:
    """Read `key=value` of a machine; raises `BadValue`."""
    key, equals, value = text.strip().partition("=")
    if not equals or not value.strip() or not _METADATA_KEY.fullmatch(key.strip()):
        raise BadValue(f"{text!r} is not key=value")
    if _UNSAFE.search(value.strip()) or not value.isprintable():
        raise BadValue(f"{value!r} is no value that MachineMetadata= could ask for: no blanks, quotes, = or ,")
    return key.strip(), value.strip()


def metadata(text: str) -> dict[str, str]:
    """Read `a=b,c=d`; raises `BadValue`, also for a key with two values."""
    found: dict[str, str] = {}
    for word in text.split(","):
        if not word.strip():
            continue
        key, value = metadata_pair(word)
        if found.setdefault(key, value) != value:
            raise BadValue(f"{key} has two values, {found[key]} and {value}")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadValue(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadValue(f"{value!r} is not a whole number")
    try:
        return int(value)
    except ValueError:
        raise BadValue(f"{value!r} is not a whole number") from None


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word in ("true", "yes", "1", "on"):
        return True
    if word in ("false", "no", "0", "off"):
        return False
    raise BadValue(f"{value!r} is neither true nor false")


def _words(value: object) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise BadValue(f"{value!r} is not a list of words")
    return tuple(word.strip() for word in words if word.strip())


def _table(value: object) -> dict[str, str]:
    if isinstance(value, str):
        return metadata(value)
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise BadValue(f"{value!r} is not a table of texts")
    for key, text in value.items():
        metadata_pair(f"{key}={text}")
    return dict(value)


_READ: dict[type, Callable[[object], Value]] = {
    str: _text,
    int: _number,
    bool: _flag,
    tuple: _words,
    dict: _table,
}


def _each_host_port(words: Sequence[str]) -> None:
    if not words:
        raise BadValue("no endpoint is named")
    for word in words:
        split_address(word, "etcd")


def _address(text: str) -> None:
    split_address(text, "listen")


def _rate(text: str) -> None:
    if text:
        rate(text)


def _pull_limit(text: str) -> None:
    if text not in ("", "0", "none", "auto"):
        rate(text)


def _size(text: str) -> None:
    if not quantities.size(text):
        raise BadValue("nothing could be kept")


def _store_size(text: str) -> None:
    if quantities.size(text) < 16 * 1024 * 1024:
        raise BadValue(f"{text} is less than 16M")


def _time(text: str) -> None:
    parse_finite(text)


def _some_time(text: str) -> None:
    if not parse_finite(text):
        raise BadValue(f"{text!r} is no time")


def _log_rate(text: str) -> None:
    lines, comma, size = text.partition(",")
    if not comma or not re.fullmatch(r"[0-9]{1,9}", lines.strip()) or not int(lines):
        raise BadValue(f"{text!r} is no rate")
    _size(size.strip())


def _drivers(words: Sequence[str]) -> None:
    unknown = sorted(set(words) - {"process", "docker", "auto"})
    if unknown or not words or ("auto" in words and len(words) > 1):
        raise BadValue(f"{', '.join(unknown or words) or 'none is named'}")


def _sinks(words: Sequence[str]) -> None:
    """Judge the kind of each sink and that no secret stands in it; the agent judges the rest."""
    kinds = ("nats", "kafka", "loki", "s3", "file", "syslog", "store")
    for word in words:
        scheme, colon, _ = word.partition(":")
        if not colon or scheme not in kinds:
            raise BadValue(f"{scheme!r} is no kind of sink")
        if (parts := urlsplit(word)).username is not None or parts.password is not None:
            raise BadValue("it carries credentials, and user-data is read by everybody on the host")


def _images(words: Sequence[str]) -> None:
    for word in words:
        image_reference(word)


def _no_token(text: str) -> None:
    if text:
        raise BadValue("it is a secret, and user-data and settings are read by everybody on the host")


def _within(low: int, high: int, *, besides: int | None = None) -> Callable[[int], None]:
    def check(number: int) -> None:
        if number != besides and not low <= number <= high:
            raise BadValue(f"{number} is not from {low} to {high}")

    return check


def _at_least(low: int) -> Callable[[int], None]:
    def check(number: int) -> None:
        if number < low:
            raise BadValue(f"{number} is less than {low}")

    return check


def _one_of(*words: str) -> Callable[[str], None]:
    def check(word: str) -> None:
        if word not in words:
            raise BadValue(f"{word!r} is none of {', '.join(words)}")

    return check


def _etcd_by_tls(values: Mapping[str, Value]) -> None:
    ca, cert, key = (bool(values.get(f"etcd-{name}")) for name in ("ca", "cert", "key"))
    if cert != key or (cert and not ca):
        raise InvalidConfig("cannot use etcd-cert and etcd-key: one of them, or etcd-ca, is missing")


def _of_agent(values: Mapping[str, Value]) -> None:
    _etcd_by_tls(values)
    _logs_fit(values)


def _of_master(values: Mapping[str, Value]) -> None:
    _etcd_by_tls(values)
    _loopback_or_trusted(values)
    _at_once_fit(values, "reads", 50, 100)
    _at_once_fit(values, "changes", 5, 20)


def _at_once_fit(values: Mapping[str, Value], what: str, usual: int, usual_at_once: int) -> None:
    per_s, at_once = (
        int(str(values.get(f"{what}-{name}", default)))
        for name, default in (("per-s", usual), ("at-once", usual_at_once))
    )
    if at_once < per_s:
        raise InvalidConfig(f"cannot use master.{what}-at-once: {at_once} is less than {what}-per-s, {per_s}")


def _logs_fit(values: Mapping[str, Value]) -> None:
    unit, total = str(values.get("log-unit-max", "64M")), str(values.get("log-max", "2G"))
    if quantities.size(unit) > quantities.size(total):
        raise InvalidConfig(f"cannot use agent.log-unit-max: {unit} is more than log-max, {total}")


def _loopback_or_trusted(values: Mapping[str, Value]) -> None:
    host, _ = split_address(str(values.get("listen", "127.0.0.1:4001")), "listen")
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    if not inside and not any(values.get(key) for key in ("trusted-network", "tls-dir", "join", "join-file")):
        raise InvalidConfig(
            f"cannot use master.listen: {values['listen']}: without TLS the API stays on loopback",
            hint="--set master.join-file=PATH, or trusted-network=true on a network that nobody else can reach",
        )


_BOTH = {
    "etcd": Setting(tuple, _each_host_port, "HOST:PORT of every member, with commas"),
    "name": Setting(str, validate_machine_name),
    "socket": Setting(),
    "state-dir": Setting(),
    "tls-dir": Setting(),
    "join": Setting(str, _no_token, "join-file=PATH, a file of mode 0600 that reaches the host by other means"),
    "join-file": Setting(),
    "etcd-ca": Setting(),
    "etcd-cert": Setting(),
    "etcd-key": Setting(),
    "cluster-key-file": Setting(),
    "metrics-token-file": Setting(),
    "profile": Setting(str, _one_of(*Profile)),
    "log-format": Setting(str, _one_of("text", "json")),
    "log-level": Setting(str, _one_of("debug", "info", "warning", "error")),
}

AGENT = Daemon(
    "agent",
    {
        **_BOTH,
        "metadata": Setting(dict, hint="key=value,key=value"),
        "policy": Setting(),
        "secrets-dir": Setting(),
        "strict-dir": Setting(),
        "address": Setting(),
        "listen": Setting(str, _address, "ADDRESS:PORT"),
        "drivers": Setting(tuple, _drivers, "auto, or any of process, docker"),
        "docker-socket": Setting(),
        "egress": Setting(str, _rate),
        "ingress": Setting(str, _rate),
        "shape-uplink": Setting(str, _one_of("auto", "never")),
        "pull-limit": Setting(str, _pull_limit, "300M, none or auto"),
        "drain-on-notice": Setting(bool),
        "imds": Setting(),
        "disk-full": Setting(int, _within(1, 100), "1 to 100"),
        "inodes-full": Setting(int, _within(1, 100), "1 to 100"),
        "cgroupspy": Setting(bool),
        "starts-at-once": Setting(int, _at_least(1)),
        "pulls-at-once": Setting(int, _at_least(1)),
        "warm": Setting(tuple, _images),
        "warm-timeout": Setting(str, _time, "10min, or 0 not to wait"),
        "image-gc": Setting(int, _within(20, 99, besides=0), "0 for never"),
        "image-gc-all": Setting(bool),
        "registry-auth": Setting(),
        "scenes-max": Setting(int, _at_least(0), "0 keeps none"),
        "scenes-mib": Setting(int, _at_least(0), "0 keeps none"),
        "log-sinks": Setting(tuple, _sinks, "nats: kafka: loki: s3: file: syslog: store:, as in docs/logs.md"),
        "log-unit-max": Setting(str, _size, "64M"),
        "log-max": Setting(str, _size, "2G"),
        "log-age": Setting(str, _some_time, "7d"),
        "log-rate": Setting(str, _log_rate, "lines and bytes a second of one unit: 50000,32M"),
    },
    _of_agent,
)

MASTER = Daemon(
    "master",
    {
        **_BOTH,
        "listen": Setting(str, _address, "ADDRESS:PORT"),
        "token-file": Setting(),
        "secrets-key-file": Setting(),
        "log-store": Setting(),
        "log-store-max": Setting(str, _store_size, "5G"),
        "log-store-age": Setting(str, _some_time, "7d"),
        "host-names": Setting(tuple),
        "reads-per-s": Setting(int, _at_least(1)),
        "reads-at-once": Setting(int, _at_least(1), "at least reads-per-s"),
        "changes-per-s": Setting(int, _at_least(1)),
        "changes-at-once": Setting(int, _at_least(1), "at least changes-per-s"),
        "trusted-network": Setting(bool),
    },
    _of_master,
)

DAEMONS = {"agent": AGENT, "master": MASTER}
