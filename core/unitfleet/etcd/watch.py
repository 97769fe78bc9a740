"""A watch that outlives connections and members, and loses and doubles nothing.

It resumes from the last event it delivered, never from a header: while a watch catches up, the header's revision
runs ahead of the events.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from unitfleet.errors import Compacted, StoreDenied
from unitfleet.etcd.endpoint import DENIED, PROBE_EVERY_S, Failure
from unitfleet.etcd.members import WATCH_AGAIN_S, Members
from unitfleet.etcd.messages import WatchCreateRequest, WatchRequest, first_key, range_end, to_key_value
from unitfleet.etcd.watches import FellBehind
from unitfleet.store import Batch, Event, EventKind

logger = logging.getLogger(__name__)


async def watch(members: Members, prefix: str, start_revision: int) -> AsyncGenerator[Batch, None]:
    """Yield every change under `prefix` from `start_revision` on, a batch a revision; raises `Compacted`.

    Raises `StoreDenied` where this identity may not read the prefix. A member that breaks the connection, freezes
    (noticed within 2.5 s) or has no leader is left for the next.
    Batches without events come as progress, about every ten minutes by etcd's default.
    """
    following = max(1, start_revision)
    backoff = members.backoff(WATCH_AGAIN_S)
    for attempt in itertools.count():
        if attempt and attempt % len(members) == 0:
            await members.pause(backoff.next_s())
        if members.closed.is_set():
            return
        endpoint = members.current
        try:
            await endpoint.connect(PROBE_EVERY_S)
            with endpoint.guarded(), members.watches(endpoint).begun(_create(prefix, following)) as feed:
                while True:
                    answer = await feed.read()
                    for batch in batches(answer, following):
                        following = batch.revision + 1
                        yield batch
                    members.answered(endpoint)
                    backoff.reset()
        except StoreDenied as error:
            members.refused(error)
            raise
        except FellBehind:
            continue  # no fault of the member's: it is begun anew from what was delivered last
        except Failure as failure:
            logger.debug("lost the watch of %s at %s: %s", prefix, endpoint.address, failure.reason)
            members.leave(endpoint, failure.reason)


def batches(answer: Any, following: int) -> Iterator[Batch]:
    """Take one of etcd's messages apart, a batch a revision, without what came before revision `following`.

    Raises `Compacted`, `StoreDenied`, and `Failure` when the member ended the watch for another reason. A message
    without events is progress: etcd sends it to a watch that has caught up, and then nothing is missing.
    """
    if answer.compact_revision:
        raise Compacted(answer.compact_revision)
    if answer.canceled and DENIED in answer.cancel_reason:
        raise StoreDenied("cannot watch this: etcd refuses it to this identity")
    if answer.canceled:
        raise Failure(answer.cancel_reason or "the member ended the watch", maybe_done=False)
    if not answer.events:
        if not answer.created and answer.header.revision >= following:
            yield Batch(answer.header.revision, ())
        return
    fresh = (event for event in answer.events if event.kv.mod_revision >= following)
    for revision, events in itertools.groupby(fresh, key=lambda event: event.kv.mod_revision):
        yield Batch(revision, tuple(map(_event, events)))


def _event(event: Any) -> Event:
    return Event(EventKind.DELETE if event.type else EventKind.PUT, to_key_value(event.kv))


def _create(prefix: str, following: int) -> Any:
    request = WatchCreateRequest(
        key=first_key(prefix), range_end=range_end(prefix), start_revision=following, progress_notify=True
    )
    return WatchRequest(create_request=request)
