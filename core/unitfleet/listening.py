"""Where a daemon listens: by TCP, and on a Unix socket that only its owner can open."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from unitfleet.errors import InvalidConfig

_TCP_HINT = "--listen ADDRESS:PORT"
_UNIX_HINT = "give --socket another path, or '' for none"


def split_address(text: str, name: str) -> tuple[str, int]:
    """Take `host:port` or `[host]:port`, given as the option `name`, apart; raises `InvalidConfig`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidConfig(f"cannot use {name}: {text!r} is not HOST:PORT")
    return host, int(port)


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises `InvalidConfig`."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidConfig(f"cannot listen on {host}:{port}: {_why(error)}", hint=_TCP_HINT) from error


def bind_unix(path: Path) -> socket.socket:
    """Return a socket that listens, for its owner alone; one that a killed daemon left makes way.

    Raises `InvalidConfig`.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            _make_way(path)
            before = os.umask(0o177)
            try:
                listening.bind(str(path))
            finally:
                os.umask(before)
            listening.listen(128)
        except OSError as error:
            raise InvalidConfig(f"cannot listen on {path}: {_why(error)}", hint=_UNIX_HINT) from error
        stack.pop_all()
    return listening


def _make_way(path: Path) -> None:
    """Remove a socket that nobody serves; raises `InvalidConfig` when something else has the path."""
    if not path.exists():
        return
    if not path.is_socket():
        raise InvalidConfig(f"cannot listen on {path}: a file that is no socket is there", hint=_UNIX_HINT)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # somebody is there, and slow
    raise InvalidConfig(f"cannot listen on {path}: another process serves it", hint=_UNIX_HINT)


def _why(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
