"""Log output of the daemons: one line for each thing that happened, as text or as JSON, on stderr."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TextIO

import msgspec


class LogFormat(StrEnum):
    """`--log-format`."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """`--log-level`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at` in seconds since 1970, and `error` with its traceback."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "program": self.program,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message`; control characters of foreign text can't forge a line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without its traceback."""
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def set_up(program: str, form: LogFormat, level: LogLevel, stream: TextIO = sys.stderr) -> None:
    """Send every log line of this process to `stream`. Called once, by a daemon's `__main__`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(program) if form is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("aiohttp.access", "asyncio", "grpc"):  # of no use to whoever debugs Unitfleet
        logging.getLogger(chatty).setLevel(logging.WARNING)
