"""The records of the Engine's log driver `json-file`: made lines of, many at once.

A record is a JSON object and a newline. Lines of more than 16 KiB come in pieces, of which only the last one's
text ends in a newline; pieces have the time of their line. What is no UTF-8 the Engine has replaced.
"""

from __future__ import annotations

import time
from calendar import timegm
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import msgspec

from unit_agent.output import LONGEST_LINE, OutputLine, cut
from unitfleet.shipped import GAP

Place = tuple[str, int]
"""The name of a file as `Generation` has it, and an offset in it."""

STREAMS = ("stdout", "stderr")

_SECOND = 1_000_000_000
_MINUTE = 17  # 2026-01-31T14:05: stands before the seconds
AROUND = 70
"""Bytes of a record that are not its text, about."""

_BEGIN = b'{"log":"'
"""Begins a record, and stands nowhere else in one: quotes of the text are escaped."""

_TORN = b"part of a line was lost here: the Engine's file is torn"


class Record(msgspec.Struct, gc=False):
    """What is read of a record."""

    log: str
    stream: Literal["stdout", "stderr"]
    time: str


decoder = msgspec.json.Decoder(Record)


@dataclass(slots=True)
class _Open:
    """A line of which pieces have come: where it begins, how long it is so far, and what is kept of it."""

    begin: Place
    stamp: str
    length: int = 0
    pieces: list[bytes] = field(default_factory=list)


class Records:
    """Makes lines of records, which it is given in order. `last` holds the time of each stream's last line."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}
        self._open: dict[str, _Open] = {}

    @property
    def begin(self) -> Place | None:
        """Return where the oldest line begins that has not ended."""
        return next(iter(self._open.values())).begin if self._open else None

    def feed(self, data: bytes, place: Place) -> list[OutputLine]:
        """Return the lines of whole records, the first of which stands at a place."""
        quick = self._whole_lines(data) if not self._open else None
        return self._one_by_one(data, place) if quick is None else quick

    def forget(self) -> None:
        """Let go of lines that have not ended: what follows was left out."""
        self._open.clear()

    def _whole_lines(self, data: bytes) -> list[OutputLine] | None:
        """Return the lines when each record is one, of the same minute; None when that is not so."""
        try:
            records = decoder.decode_lines(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        stamps = [record.time for record in records]
        minute = min(stamps)[:_MINUTE]
        texts = "".join([record.log for record in records]).encode().split(b"\n")
        if max(stamps)[:_MINUTE] != minute or len(texts) != len(records) + 1 or texts[-1]:
            return None
        streams = [record.stream for record in records]
        try:
            base = timegm(time.strptime(minute, "%Y-%m-%dT%H:%M:"))
            lines = list(zip([base + float(stamp[_MINUTE:-1]) for stamp in stamps], streams, texts, strict=False))
        except ValueError:
            return None
        for stream in set(streams):
            self.last[stream] = stamps[len(streams) - 1 - streams[::-1].index(stream)]
        return lines  # type: ignore[return-value]  # a literal is a str

    def _one_by_one(self, data: bytes, place: Place) -> list[OutputLine]:
        lines: list[OutputLine] = []
        name, offset = place
        for raw in data.removesuffix(b"\n").split(b"\n"):
            record, torn = read(raw)
            if torn:
                at = seconds(record.time) if record is not None else time.time()
                lines.append((at, GAP, _TORN))
            if record is not None:
                lines += self._take(record, (name, offset))
            offset += len(raw) + 1
        return lines

    def _take(self, record: Record, place: Place) -> list[OutputLine]:
        """Take one record; only the beginning of a long line is held."""
        done: list[OutputLine] = []
        stream = record.stream
        held = self._open.get(stream)
        if held is not None and held.stamp != record.time:  # its end never came: its writer was killed
            done.append(self._close(stream))
            held = None
        ends = record.log.endswith("\n")
        text = record.log.removesuffix("\n").encode(errors="replace")
        if held is None and ends:
            self.last[stream] = record.time
            return [*done, (seconds(record.time), stream, cut(text))]
        if held is None:
            held = self._open[stream] = _Open(place, record.time)
        if held.length < LONGEST_LINE:
            held.pieces.append(text)
        held.length += len(text)
        if ends:
            done.append(self._close(stream))
        return done

    def _close(self, stream: str) -> OutputLine:
        held = self._open.pop(stream)
        self.last[stream] = held.stamp
        return seconds(held.stamp), stream, cut(b"".join(held.pieces), held.length)


def read(raw: bytes) -> tuple[Record | None, bool]:
    """Return the record that a line of the file holds, and whether part of another one was lost in it.

    An Engine that was ended while it wrote leaves a beginning, to which the next one adds; a host that lost its
    power may leave zeros.
    """
    for text, torn in ((raw, False), (raw[max(0, raw.rfind(_BEGIN)) :].strip(b"\0\n"), True)):
        try:
            record = decoder.decode(text)
            nanoseconds(record.time)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            continue
        return record, torn
    return None, True


def nanoseconds(stamp: str) -> int:
    """Return a record's time since 1970, exactly; the Engine leaves out zeros at its end. Raises ValueError."""
    return _second(stamp[:19]) * _SECOND + int(stamp[20:-1].ljust(9, "0"))


def seconds(stamp: str) -> float:
    """Return a record's time since 1970."""
    return nanoseconds(stamp) / _SECOND


def stamp_of(ns: int) -> str:
    """Return a time since 1970 as records have it."""
    whole, rest = divmod(ns, _SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:09}Z"


@lru_cache(maxsize=256)
def _second(text: str) -> int:
    return timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
