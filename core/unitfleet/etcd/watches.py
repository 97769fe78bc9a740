"""All watches of one client at one member, on one stream.

A stream costs a member several times what a watch costs, and an agent has four watches. etcd answers requests to
begin a watch in the order they were sent, and names the watch in every message of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from unitfleet.errors import StoreError
from unitfleet.etcd.endpoint import Endpoint, Failure, Stream
from unitfleet.etcd.messages import WATCH, WatchCancelRequest, WatchRequest

MOST_WAITING = 256
"""Messages that the reader of a watch may be behind: the others on its stream are not held up for it."""


class FellBehind(Failure):
    """A watch was ended because its reader takes nothing; it may be begun anew from where it was."""


class Feed:
    """The messages of one watch, in order."""

    def __init__(self) -> None:
        self.id = -1  # etcd's, once it has begun
        self.left = False
        self._waiting: deque[Any] = deque()
        self._came = asyncio.Event()
        self._over: Exception | None = None

    async def read(self) -> Any:
        """Wait for the next message; raises `Failure`, or a `StoreError`, when there will be none."""
        while not self._waiting:
            if self._over is not None:
                raise self._over
            self._came.clear()
            await self._came.wait()
        return self._waiting.popleft()

    @property
    def is_full(self) -> bool:
        """Whether its reader is too far behind."""
        return len(self._waiting) >= MOST_WAITING

    def put(self, message: Any) -> None:
        """Let this be read next."""
        self._waiting.append(message)
        self._came.set()

    def end(self, why: Exception) -> None:
        """Let nothing more come after what has."""
        self._over = self._over or why
        self._came.set()


class Watches:
    """The watches of one client at one member: the first opens a stream, the last closes it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._shared: _Shared | None = None

    @contextlib.contextmanager
    def begun(self, request: Any) -> Iterator[Feed]:
        """Begin a watch, ended when the context is left. Raises `Failure` where no stream can be opened."""
        if self._shared is None or self._shared.over:
            self._shared = _Shared(self._endpoint)
        shared = self._shared
        feed = shared.begin(request)
        try:
            yield feed
        finally:
            shared.leave(feed)


class _Shared:
    """One stream, until it fails or nobody watches by it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.over = False
        self._asked: deque[Feed] = deque()  # in the order in which etcd will say that they have begun
        self._feeds: dict[int, Feed] = {}
        self._outgoing: deque[Any] = deque()
        self._something = asyncio.Event()
        self._open = contextlib.ExitStack()
        stream = self._open.enter_context(endpoint.stream(WATCH, WatchRequest))
        self._task = asyncio.ensure_future(self._run(stream))

    def begin(self, request: Any) -> Feed:
        """Ask for a watch."""
        feed = Feed()
        self._asked.append(feed)
        self._send(request)
        return feed

    def leave(self, feed: Feed) -> None:
        """End a watch, and the stream with the last one."""
        feed.left = True
        if self._feeds.pop(feed.id, None) is not None:
            self._cancel(feed.id)
        if not self._feeds and all(asked.left for asked in self._asked):
            self._close(Failure("nobody watches", maybe_done=True))
            self._task.cancel()

    async def _run(self, stream: Stream) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(stream), name="ask for watches")
                tasks.create_task(self._read(stream), name="read watches")
        except* (Failure, StoreError) as group:
            self._close(group.exceptions[0])
        finally:
            self._close(Failure("the stream was given up", maybe_done=True))

    async def _write(self, stream: Stream) -> None:
        while True:
            while self._outgoing:
                await stream.write(self._outgoing.popleft())
            self._something.clear()
            await self._something.wait()

    async def _read(self, stream: Stream) -> None:
        while True:
            self._take(await stream.read())

    def _take(self, answer: Any) -> None:
        if answer.created:
            feed: Feed | None = self._begun(answer)
        elif answer.canceled:
            feed = self._feeds.pop(answer.watch_id, None)
        else:
            feed = self._feeds.get(answer.watch_id)
        if feed is None or feed.left:
            return
        if feed.is_full:
            feed.end(FellBehind("its reader is too far behind", maybe_done=False))
            if self._feeds.pop(feed.id, None) is not None:
                self._cancel(feed.id)
        else:
            feed.put(answer)

    def _begun(self, answer: Any) -> Feed:
        """Note whose watch this is: one that is refused has no id, or etcd gives it that of another."""
        if not self._asked:
            raise Failure("the member began a watch that nobody asked for", maybe_done=True)
        feed = self._asked.popleft()
        if feed.left and not answer.canceled:
            self._cancel(answer.watch_id)
        elif not answer.canceled:
            feed.id = answer.watch_id
            self._feeds[feed.id] = feed
        return feed

    def _cancel(self, watch: int) -> None:
        self._send(WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch)))

    def _send(self, request: Any) -> None:
        self._outgoing.append(request)
        self._something.set()

    def _close(self, why: Exception) -> None:
        self.over = True
        self._open.close()
        for feed in (*self._asked, *self._feeds.values()):
            feed.end(why)
