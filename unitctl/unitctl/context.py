"""Where the API is and which token opens it (DESIGN, "Security").

In this order: `--endpoint`, `UNITCTL_ENDPOINT`, the context (`--context`, `UNITCTL_CONTEXT`, or the current one of
`$XDG_CONFIG_HOME/unitctl/config.toml`), then the sockets of a master and an agent on this host:

    current = "demo"

    [contexts.demo]
    endpoints = ["http://127.0.0.1:7440", "unix:///run/unitfleet/api.sock"]
    token-file = "/home/ada/.config/unitctl/demo.token"     # mode 0600

    [contexts.production]
    endpoints = ["https://10.0.0.1:4001", "https://10.0.0.2:4001"]
    ca-file = "/home/ada/.config/unitctl/production/ca.pem" # whom to trust; or its digest: ca-digest = "9f86…"
    cert-file = "/home/ada/.config/unitctl/production/cert.pem"
    key-file = "/home/ada/.config/unitctl/production/key.pem"   # mode 0600; or a token-file instead of both
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitfleet.errors import InvalidConfig, NotFound

# Of a master on this host, and of the agent, which passes on to a master.
LOCAL_SOCKETS = ("/run/unitfleet/api.sock", "/run/unitfleet/agent.sock")


@dataclass(frozen=True, slots=True)
class Invocation:
    """What was said before the verb."""

    endpoint: str | None = None
    context: str | None = None
    quiet: bool = False
    no_color: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of the API: a unix socket, or host and port."""

    name: str  # as the user wrote it, for messages
    host: str = ""
    port: int = 0
    socket: str = ""
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom an https endpoint must be, and the certificate that we show; "" when it is not said.

    By `ca_digest` the authority is fetched from the endpoint itself and compared before anything else is sent.
    """

    ca_file: str = ""
    ca_digest: str = ""
    cert_file: str = ""
    key_file: str = ""


_TRUST = ("ca-file", "ca-digest", "cert-file", "key-file")
_NO_TRUST = Trust()


@dataclass(frozen=True, slots=True)
class Context:
    """The API to talk to. `source` says who named it; `token_file` is "" when none is known."""

    endpoints: tuple[Endpoint, ...]
    source: str
    token: str = ""
    token_file: str = ""
    warnings: tuple[str, ...] = ()
    trust: Trust = _NO_TRUST


def find(invocation: Invocation, env: Mapping[str, str]) -> Context:
    """Find the API. Raises `InvalidConfig` or `NotFound` (a context nobody wrote)."""
    token_file = env.get("UNITCTL_TOKEN_FILE", "")
    endpoint, source = invocation.endpoint, "--endpoint"
    if not endpoint and not invocation.context:
        endpoint, source = env.get("UNITCTL_ENDPOINT"), "UNITCTL_ENDPOINT"
    if endpoint:
        named = endpoint.split(",")
        entry = _entry_for(named, invocation, env)
        return _context(named, source, token_file or entry["token-file"], _trust(entry))
    name, found = _entry(invocation, env)
    if found is None:
        return _context(list(LOCAL_SOCKETS), "the default (no context is set)", token_file)
    return _context(found["endpoints"], f"context {name}", token_file or found["token-file"], _trust(found))


def config_file(env: Mapping[str, str]) -> Path:
    """The file that holds the contexts."""
    base = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "unitctl" / "config.toml"


def current(env: Mapping[str, str]) -> str:
    """The name of the current context of the file, "" when none is."""
    return _contexts(config_file(env))[0]


def names(env: Mapping[str, str]) -> tuple[str, ...]:
    """The names of all contexts of the file."""
    return tuple(_contexts(config_file(env))[1])


def token_file(name: str, env: Mapping[str, str]) -> str:
    """The token file that a context names, "" when there is no such context."""
    entry = _contexts(config_file(env))[1].get(name)
    return str(entry["token-file"]) if entry else ""


def save(
    name: str,
    endpoints: tuple[str, ...],
    token_file: str,
    env: Mapping[str, str],
    *,
    current: bool = True,
    trust: Trust = _NO_TRUST,
) -> Path:
    """Write a context and, with `current`, make it the current one; the other contexts stay. Returns the file."""
    path = config_file(env)
    before, contexts = _contexts(path)
    told = (trust.ca_file, trust.ca_digest, trust.cert_file, trust.key_file)
    entry = {"endpoints": list(endpoints), "token-file": token_file, **dict(zip(_TRUST, told, strict=True))}
    contexts = {**contexts, name: entry}
    _write(path, name if current else before, contexts)
    return path


def forget(name: str, env: Mapping[str, str]) -> None:
    """Take a context out of the file; the file goes with its last context."""
    path = config_file(env)
    current, contexts = _contexts(path)
    if contexts.pop(name, None) is None:
        return
    if contexts:
        _write(path, current if current != name else "", contexts)
    else:
        path.unlink()


def parse_endpoint(text: str) -> Endpoint:
    """Read `https://host:port`, `http://host:port`, `host:port`, `unix:///path` or `/path`."""
    name = text.strip()
    if name.startswith("unix://") or name.startswith("/"):
        path = name.removeprefix("unix://")
        if not path.startswith("/"):
            raise InvalidConfig(f"cannot use endpoint {name!r}: a socket is named by its absolute path")
        return Endpoint(name=name, socket=path)
    tls = name.startswith("https://")
    host, colon, port = name.removeprefix("https://" if tls else "http://").rstrip("/").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidConfig(
            f"cannot use endpoint {name!r}: it names no host and port",
            hint="endpoints look like https://10.0.0.1:4001 or unix:///run/unitfleet/api.sock",
        )
    return Endpoint(name=name, host=host, port=int(port), tls=tls)


def _context(endpoints: list[str], source: str, token_file: str, trust: Trust = _NO_TRUST) -> Context:
    parsed = tuple(parse_endpoint(text) for text in endpoints if text.strip())
    if not parsed:
        raise InvalidConfig(f"cannot find the API: {source} names no endpoint")
    token, warnings = _read_token(token_file) if token_file else ("", ())
    return Context(
        endpoints=parsed, source=source, token=token, token_file=token_file, warnings=warnings, trust=trust
    )


def _trust(entry: Mapping[str, Any]) -> Trust:
    return Trust(*(entry.get(key, "") for key in _TRUST))


def _read_token(path: str) -> tuple[str, tuple[str, ...]]:
    """Read a token as `ssh` reads a key: not one that everybody on this host can read."""
    try:
        with open(os.path.expanduser(path), encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(4097).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise InvalidConfig(f"cannot read the token file {path}: {why.lower()}") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InvalidConfig(
            f"cannot use the token file {path}: everybody can read it (mode {mode:04o})", hint=f"chmod 600 {path}"
        )
    if not token or len(token) > 4096 or not token.isprintable():
        raise InvalidConfig(f"cannot use the token file {path}: it holds no token")
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        return token, (f"the token file {path} can be read by its group (mode {mode:04o}); chmod 600 {path}",)
    return token, ()


def _entry_for(endpoints: list[str], invocation: Invocation, env: Mapping[str, str]) -> Mapping[str, Any]:
    """The entry whose token and certificates endpoints named one by one get: of the context asked for, else of one
    that lists them all.

    A token is never sent where no context says it belongs.
    """
    nothing = {"token-file": ""}
    if invocation.context:
        return _entry(invocation, env)[1] or nothing
    named = {text.strip() for text in endpoints}
    entries = _contexts(config_file(env))[1].values()
    return next((entry for entry in entries if named <= set(entry["endpoints"])), nothing)


def _entry(invocation: Invocation, env: Mapping[str, str]) -> tuple[str, dict[str, Any] | None]:
    path = config_file(env)
    asked = invocation.context or env.get("UNITCTL_CONTEXT") or ""
    current, contexts = _contexts(path)
    name = asked or current
    if not name:
        return "", None
    if name not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        raise NotFound(f"cannot find context {name!r} in {path}", hint=f"contexts there: {known}")
    return name, contexts[name]


def _contexts(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    import tomllib

    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise InvalidConfig(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot read {path}: {error}") from error
    current, contexts = content.get("current", ""), content.get("contexts", {})
    if not isinstance(current, str) or not isinstance(contexts, dict):
        raise InvalidConfig(f"cannot read {path}: `current` is a name and `contexts` holds tables")
    return current, {name: _checked(path, name, entry) for name, entry in contexts.items()}


def _checked(path: Path, name: str, entry: object) -> dict[str, Any]:
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    endpoints, token_file = fields.get("endpoints"), fields.get("token-file", "")
    if not isinstance(endpoints, list) or not all(isinstance(text, str) for text in endpoints):
        raise InvalidConfig(f'cannot read {path}: context {name} needs endpoints = ["…"]')
    if not isinstance(token_file, str):
        raise InvalidConfig(f"cannot read {path}: token-file of context {name} is a path")
    trust = {key: fields.get(key, "") for key in _TRUST}
    if not all(isinstance(text, str) for text in trust.values()):
        raise InvalidConfig(f"cannot read {path}: {', '.join(_TRUST)} of context {name} are texts")
    return {"endpoints": endpoints, "token-file": token_file, **trust}


def _write(path: Path, current: str, contexts: Mapping[str, Mapping[str, Any]]) -> None:
    lines = [f"current = {_quoted(current)}"]
    for name, entry in contexts.items():
        lines += ["", f"[contexts.{_quoted(name)}]", f"endpoints = {_quoted(entry['endpoints'])}"]
        lines += [f"{key} = {_quoted(entry[key])}" for key in ("token-file", *_TRUST) if entry[key]]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_suffix(".new")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(path)


def _quoted(value: object) -> str:
    """A JSON string or list of strings is the same in TOML."""
    import json

    return json.dumps(value, ensure_ascii=False)
