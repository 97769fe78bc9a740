"""Reads `--log-sinks`: URLs that say where lines go, never with which secret.

    nats://host:4222/prefix   kafka://host:9092/topic   loki://host:3100   s3://bucket/prefix?endpoint=http://…
    file:///path              syslog://host:514         syslog:///dev/log  store:

Every one takes `?name=` (what `LogSink=` calls it; default: its scheme). Those that log in take
`?token-file=PATH`: a file with a token, or with `USER:PASSWORD`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from unitfleet.errors import InvalidConfig

_LOGIN = frozenset({"name", "token-file", "tls", "ca-file"})
QUERY: dict[str, frozenset[str]] = {
    "nats": _LOGIN | {"stream", "also"},
    "kafka": _LOGIN | {"also"},
    "loki": _LOGIN | {"tenant", "metadata"},
    "s3": frozenset({"name", "token-file", "endpoint", "region", "every"}),
    "file": frozenset({"name", "max", "keep"}),
    "syslog": frozenset({"name", "transport", "tls", "ca-file"}),
    "store": frozenset({"name"}),
}
"""What each scheme takes after its `?`."""

PORTS = {"nats": 4222, "kafka": 9092, "loki": 3100, "syslog": 514}


@dataclass(frozen=True, slots=True)
class SinkAddress:
    """One of `--log-sinks`, taken apart. `path` is without its first slash, but for files."""

    scheme: str
    host: str
    port: int
    path: str
    query: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What `LogSink=` calls it."""
        return self.query.get("name", self.scheme)

    @property
    def hosts(self) -> tuple[str, ...]:
        """`host:port` of this and of every `also=`."""
        also = tuple(word for word in self.query.get("also", "").split("+") if word)
        return (f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}", *also)

    def shown(self) -> str:
        """Return it for messages: scheme, place and path."""
        place = f"//{self.hosts[0]}" if self.port else f"//{self.host}" if self.host else ""
        path = self.path if self.path.startswith("/") or not self.path else f"/{self.path}"
        return f"{self.scheme}:{place or ('//' if path else '')}{path}"

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes or no of the query; raises `InvalidConfig`."""
        text = self.query.get(key, "")
        if text not in ("", "yes", "no"):
            raise _refused(self.shown(), f"{key}={text} is neither yes nor no", f"{key}=yes")
        return default if not text else text == "yes"


def read(texts: Sequence[str]) -> tuple[SinkAddress, ...]:
    """Read all of `--log-sinks`; raises `InvalidConfig` for one that can't be used, or two of one name."""
    found = tuple(_read(text) for text in texts)
    names = [address.name for address in found]
    for name in names:
        if names.count(name) > 1:
            raise _refused(name, "two sinks have this name", "give one of them another: ?name=second")
    return found


def _read(text: str) -> SinkAddress:
    scheme, colon, _ = text.partition(":")
    if not colon or scheme not in QUERY:
        near = difflib.get_close_matches(scheme, QUERY, 1)
        hint = f"did you mean {near[0]}:// ?" if near else f"one of {', '.join(f'{each}:' for each in QUERY)}"
        raise _refused(_bare(text), f"{scheme!r} is no kind of sink", hint)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(_bare(text), str(error).lower(), f"{scheme}://HOST:PORT") from error
    if parts.username is not None or parts.password is not None:
        hint = "a file with USER:PASSWORD or a token: ?token-file=PATH" if "token-file" in QUERY[scheme] else ""
        raise _refused(_bare(text), "it carries credentials, and flags are seen by everybody", hint)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    for key, _ in pairs:
        if key not in QUERY[scheme]:
            raise _refused(
                _bare(text), f"unknown {key!r} after ?", f"{scheme}: takes {', '.join(sorted(QUERY[scheme]))}"
            )
    query = {key: "+".join(value for each, value in pairs if each == key) for key, _ in pairs}
    path = parts.path if scheme in ("file", "syslog") else parts.path.strip("/")
    address = SinkAddress(scheme, host, port or (PORTS.get(scheme, 0) if host else 0), path, query)
    why = _missing(address)
    if why:
        raise _refused(address.shown(), *why)
    return address


def _missing(address: SinkAddress) -> tuple[str, str] | None:
    """Return what it lacks, and the right form."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", address.name):
        return f"{address.name!r} is no name", "small letters, digits and -"
    if address.name == "none":
        return "the name none is taken", "LogSink=none ships a unit's lines nowhere"
    match address.scheme:
        case "nats" | "loki" if not address.host:
            return "it names no host", f"{address.scheme}://HOST:{PORTS[address.scheme]}"
        case "kafka" if not address.host or not address.path or "/" in address.path:
            return "it names no broker, or no topic", "kafka://HOST:9092/TOPIC"
        case "s3" if not address.host:
            return "it names no bucket", "s3://BUCKET/PREFIX?endpoint=https://HOST"
        case "file" if address.host or not address.path.startswith("/") or address.path.endswith("/"):
            return "it names no file", "file:///var/log/units.jsonl"
        case "syslog" if not address.host and not address.path.startswith("/"):
            return "it names neither host nor socket", "syslog://HOST:514 or syslog:///dev/log"
        case "store" if address.host or address.path:
            return "the masters are found by the store", "store:"
    return None


def _bare(text: str) -> str:
    """Return a text without what could be a secret in it: a wrong URL is shown too."""
    before, _, after = text.partition("?")[0].rpartition("@")
    return f"{before.partition('//')[0]}//…@{after}" if before else after


def _refused(shown: str, why: str, hint: str) -> InvalidConfig:
    return InvalidConfig(f"cannot use log-sinks: {shown}: {why}", hint=hint or None)
