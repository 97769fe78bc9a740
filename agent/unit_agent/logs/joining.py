"""Stack traces and other text of several lines, as one, for readers who ask for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from unitfleet.api import LogLine

MOST_LINES = 500
APART_S = 5.0
"""Lines further apart than this are not of one text."""

_GOES_ON = re.compile(
    r"\s+\S"  # indented: frames of Java and Go, bodies of Python's
    r"|at \S+.*\(|Caused by: |Suppressed: |\.\.\. \d+ (?:more|common frames)"
    r"|During handling of the above exception|The above exception was the direct cause"
    r"|Traceback \(most recent call last\):"
    r"|goroutine \d+ \["
    r"|[)\]}]+[,;]?\s*$"
)
_TRACEBACK = re.compile(r"(?:.*\s)?Traceback \(most recent call last\):\s*$")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?$")
_PANIC = re.compile(r"panic: |fatal error: ")


def joined(lines: Iterable[LogLine]) -> Iterator[LogLine]:
    """Yield the lines with those that go on one before them added to it, by newlines; each source apart.

    What is yielded keeps the time and number of its first line, in the order of first lines.
    """
    waiting: dict[tuple[str, str, str, str], _Text] = {}
    for line in lines:
        key = (line.machine, line.unit, line.stream, line.file)
        text = waiting.get(key)
        if text is not None and text.takes(line):
            text.add(line)
            continue
        if text is not None:
            yield waiting.pop(key).line()
        for other in [known for known, held in waiting.items() if line.at - held.last > APART_S]:
            yield waiting.pop(other).line()
        waiting[key] = _Text(line)
    yield from (text.line() for text in sorted(waiting.values(), key=lambda text: text.first.at))


class _Text:
    """Lines that belong together so far."""

    def __init__(self, first: LogLine) -> None:
        self.first = first
        self.last = first.at
        self._parts = [first.text]
        self._python = bool(_TRACEBACK.match(first.text))
        self._panic = bool(_PANIC.match(first.text))

    def takes(self, line: LogLine) -> bool:
        """Tell whether a line goes on this text."""
        if line.epoch != self.first.epoch or line.at - self.last > APART_S or len(self._parts) >= MOST_LINES:
            return False
        if line.stream == "gap" or not self.first.text.strip():
            return False
        if _GOES_ON.match(line.text):
            return True
        if not line.text.strip():
            return self._panic or self._python
        if self._python:
            return bool(_EXCEPTION.match(line.text)) and self._parts[-1][:1].isspace()
        return self._panic and bool(re.match(r"\S+\(.*\)$|created by |main\.", line.text))

    def add(self, line: LogLine) -> None:
        """Take a line in."""
        self._parts.append(line.text)
        self.last = line.at
        self._python = self._python or bool(_TRACEBACK.match(line.text))

    def line(self) -> LogLine:
        """Return the text as one line."""
        if len(self._parts) == 1:
            return self.first
        first = self.first
        return LogLine(
            at=first.at,
            stream=first.stream,
            text="\n".join(self._parts),
            machine=first.machine,
            unit=first.unit,
            epoch=first.epoch,
            seq=first.seq,
            file=first.file,
        )
