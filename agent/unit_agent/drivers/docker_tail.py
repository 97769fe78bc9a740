"""A container's whole output, from a mark on: read from the files that the Engine's driver `json-file` keeps.

The Engine's own reading passes over what it rotated away meanwhile, and says nothing; here every file is held
until it is read, and what is missing is told. A mark is `TIMES@PLACE`: the times as `docker_output.Frames` has
them, for when the files can't be read any more, and the place behind the last line, a file and an offset; and,
while a line in pieces has not ended, the place where that one begins. A mark without a place is one of `Frames`.
"""

from __future__ import annotations

import re
import time

from unit_agent.drivers.docker_generations import EMPTIED, Generation, Generations
from unit_agent.drivers.docker_output import SLACK_NS
from unit_agent.drivers.docker_records import (
    AROUND,
    STREAMS,
    Place,
    Record,
    Records,
    nanoseconds,
    read,
    seconds,
    stamp_of,
)
from unit_agent.output import Limit, OutputLine
from unitfleet.shipped import GAP

PIECE = 256 * 1024

GONE = "lines may be missing here: the Engine rotated its files away before they were read"
NO_RECORD = "some lines were lost here: the Engine's file is damaged"
TORN = "part of a line was lost here: the Engine's file ends within it"

_PLACES = re.compile(r"(\d+\.\d+):(\d+)(?:,(\d+\.\d+):(\d+))?")


class FileTail:
    """Reads one container's files. Its calls block, briefly. Raises OSError when they can't be opened."""

    def __init__(self, path: str, most: int, mark: str) -> None:
        self.files = Generations(path, most)
        self.size = 0  # of the last piece
        self._records = Records()
        self._reading = self.files.oldest
        self._behind: Place = ("0.0", 0)
        self._given: Place | None = None  # what completes before this place was given by an earlier reader
        times, _, place = mark.partition("@")
        told = [part.partition("+") for part in times.split(",")] if times else []
        self._old = {stream: int(at) for stream, (at, _, _) in zip(STREAMS, told, strict=False)}
        self._same = {stream: int(same) for stream, (_, _, same) in zip(STREAMS, told, strict=False)}
        self._since = max(0, min(self._old.values()), max(self._old.values()) - SLACK_NS) if told else 0
        self._found_old = False
        self._kept: list[OutputLine] = []
        if place:
            self._go_to(place)
        elif self._since:
            self._go_to_time()
        elif not self.files.is_whole:
            self.files.oldest.gaps.append(GONE)
        self._reading = self.files.oldest

    @property
    def has_mark(self) -> bool:
        """Tell whether `mark` is one: not while what a mark of times says was given is being left out."""
        return not self._since

    @property
    def mark(self) -> str:
        """Return where to read on from."""
        ns = [nanoseconds(self._records.last[name]) if name in self._records.last else 0 for name in STREAMS]
        times = ",".join(f"{at}+{int(at > 0)}" for at in ns)
        behind = "{}:{}".format(*self._behind)
        begin = self._records.begin
        return f"{times}@{behind}" + (",{}:{}".format(*begin) if begin is not None else "")

    def more(self, limit: Limit | None = None) -> list[OutputLine] | None:
        """Return lines that have come, a bounded number, [] when they were no whole ones; None: there are none.

        What the limit drops is counted, and no lines are made of it.
        """
        self.files.look()
        generation = self.files.oldest
        if generation is not self._reading:  # the one before was given up
            self._reading = generation
            self._records.forget()
        lines = [(self._now(generation), GAP, text.encode()) for text in generation.gaps]
        generation.gaps.clear()
        if self._since:
            self._kept, lines = self._kept + lines, []
        self.size = PIECE
        data = generation.read(PIECE)
        if generation.was_emptied():
            self._records.forget()
            return [*lines, (time.time(), GAP, EMPTIED.encode())]
        end = data.rfind(b"\n") + 1
        if end:
            self.size = end
            return lines + self._take(generation, data[:end], limit)
        if len(data) == PIECE:
            generation.offset += PIECE
            return [*lines, (self._now(generation), GAP, NO_RECORD.encode())]
        if len(self.files.files) > 1:
            if data:
                lines.append((self._now(generation), GAP, TORN.encode()))
            self.files.turn()
            self._reading = self.files.oldest
            return lines
        return (lines + self._end_of_old()) or None

    def close(self) -> None:
        """Close the files."""
        self.files.close()

    def _take(self, generation: Generation, data: bytes, limit: Limit | None) -> list[OutputLine]:
        place = (generation.name, generation.offset)
        generation.offset += len(data)
        self._behind = (place[0], generation.offset)
        last = read(data[data.rfind(b"\n", 0, -1) + 1 :])[0]
        if self._since:
            return self._take_new(data, place, last)
        if self._given is not None:
            return self._take_given(data, place)
        if limit is not None and last is not None and limit.drops(seconds(last.time)):
            count = data.count(b"\n")
            limit.dropped(count, max(0, len(data) - count * AROUND))
            self._records.forget()
            self._records.last[last.stream] = last.time
            return []
        return self._records.feed(data, place)

    def _take_given(self, data: bytes, place: Place) -> list[OutputLine]:
        """Take what an earlier reader took before: only pieces of lines that had not ended are of use."""
        assert self._given is not None
        name, offset = self._given
        if place[0] != name:
            self._records.feed(data, place)
            self._behind = self._given
            return []
        given = max(0, offset - place[1])
        if given:
            self._records.feed(data[:given], place)
        if given > len(data):
            self._behind = self._given
            return []
        self._given = None
        return self._records.feed(data[given:], (name, offset)) if given < len(data) else []

    def _take_new(self, data: bytes, place: Place, last: Record | None) -> list[OutputLine]:
        """Leave out what a mark of times says was given; all that is new comes at once, when that has its end.

        Nothing is given before: a mark within would not tell what is left out.
        """
        if last is not None and nanoseconds(last.time) < self._since:
            self._found_old = True
            return []
        name, offset = place
        for raw in data[:-1].split(b"\n"):
            record, _ = read(raw)
            if record is not None and self._is_old(record):
                self._found_old = True
            else:
                self._kept += self._records.feed(raw + b"\n", (name, offset))
            offset += len(raw) + 1
        if last is not None and nanoseconds(last.time) > max(self._old.values()) + SLACK_NS:
            return self._end_of_old()
        return []

    def _is_old(self, record: Record) -> bool:
        at, old = nanoseconds(record.time), self._old[record.stream]
        if at == old and self._same[record.stream]:
            self._same[record.stream] -= record.log.endswith("\n")
            return True
        return at < old

    def _end_of_old(self) -> list[OutputLine]:
        """Go on without looking at times."""
        if not self._since:
            return []
        kept, self._kept, self._since = self._kept, [], 0
        for stream, at in self._old.items():
            if at:
                self._records.last.setdefault(stream, stamp_of(at))
        if not self._found_old:
            kept.insert(0, (kept[0][0] if kept else time.time(), GAP, GONE.encode()))
        return kept

    def _go_to(self, place: str) -> None:
        """Turn to where a mark says; when its file is gone, to the oldest one, which tells of it."""
        for stream, at in self._old.items():
            if at:
                self._records.last[stream] = stamp_of(at)
        self._since = 0
        match = _PLACES.fullmatch(place)
        if match is None or match[1] == "0.0":
            return  # nothing was read yet
        behind = (match[1], int(match[2]))
        self._behind = behind
        for file in self.files.files:
            file.answers_to(behind[0])
        if match[3] is not None and self._stand_at((match[3], int(match[4]))):
            self._given = behind
            return
        if not self._stand_at(behind):
            self._behind = ("0.0", 0)
        elif match[3] is None:
            return
        self.files.oldest.gaps.append(GONE)

    def _stand_at(self, place: Place) -> bool:
        name, offset = place
        for file in self.files.files:
            if file.answers_to(name) and (file.packed is not None or file.unread >= offset):
                while self.files.oldest is not file:
                    self.files.turn()
                file.offset = offset
                return True
        return False

    def _go_to_time(self) -> None:
        """Turn to the newest file that may hold what comes behind the times of a mark."""
        while len(self.files.files) > 1:
            record = self.files.files[1].first_record
            if record is None or nanoseconds(record.time) >= self._since:
                return
            self._found_old = True
            self.files.turn()

    def _now(self, generation: Generation) -> float:
        """Return the time that a line about what is missing has: of the line behind it, where there is one."""
        record = None if generation.offset else generation.first_record
        return seconds(record.time) if record is not None else time.time()
