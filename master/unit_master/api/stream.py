"""The event stream: a snapshot of the units asked for, then what changes of them, a message a revision.

A reader that is slower than the cluster gets what changed meanwhile in one message, as of the newest revision;
when that is too much to list, a new snapshot. A resumed stream begins with a snapshot too: nothing is missed.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from unit_master.api.backend import BACKEND, CATCH_UP_S, ApiError
from unit_master.api.sse import event_stream, since
from unit_master.cache import Update
from unit_master.view import ClusterView
from unit_master.views import Views, machine_view, machine_views
from unitfleet import keys
from unitfleet.api import MachineView, StreamMessage, UnitView
from unitfleet.model import Happening

MOST_UNITS = 1000


async def stream(request: web.Request) -> web.StreamResponse:
    """Tell about `?units=A,B`, or everything, from revision `?since=` or `Last-Event-ID` on."""
    backend = request.app[BACKEND]
    wanted = _wanted(request)
    await backend.cache.wait_for_asked(since(request), CATCH_UP_S)
    with backend.streaming(), backend.cache.subscribe() as subscription:
        async with event_stream(request) as events:
            first = snapshot(backend.cache.view, wanted)
            await events.send(first.rev, first)
            while True:
                update = await events.next(subscription)
                message = changes(backend.cache.view, update, wanted)
                if message is not None:
                    await events.send(message.rev, message)
        return events.response


def snapshot(view: ClusterView, wanted: frozenset[str] | None) -> StreamMessage:
    """Return the units asked for as they are; those that are not there are `gone`."""
    views = Views(view)
    found, gone = _units(views, views.names() if wanted is None else sorted(wanted))
    machines = tuple(machine_views(view)) if wanted is None else ()
    return StreamMessage(rev=view.revision, snapshot=True, units=found, gone=gone, machines=machines)


def changes(view: ClusterView, update: Update, wanted: frozenset[str] | None) -> StreamMessage | None:
    """Return what `update` changed of the units asked for, None when it did not touch them."""
    if update.keys is None:
        return snapshot(view, wanted)
    touched = _touched(view, update.keys)
    events = _events(view, update.keys, wanted)
    found, gone = _units(Views(view), sorted(touched if wanted is None else touched & wanted))
    machines = _machines(view, update.keys) if wanted is None else ()
    if not (found or gone or machines or events):
        return None
    return StreamMessage(rev=view.revision, units=found, gone=gone, machines=machines, events=events)


def _wanted(request: web.Request) -> frozenset[str] | None:
    text = request.query.get("units", "")
    if not text:
        return None
    wanted = frozenset(name for name in text.split(",") if name)
    if len(wanted) > MOST_UNITS:
        raise ApiError(
            "invalid_request", f"cannot follow {len(wanted)} units by name", "leave ?units= out for all"
        )
    return wanted


def _units(views: Views, wanted: Iterable[str]) -> tuple[tuple[UnitView, ...], tuple[str, ...]]:
    seen = {name: views.unit(name) for name in wanted}
    found = tuple(shown for shown in seen.values() if shown is not None)
    return found, tuple(name for name, shown in seen.items() if shown is None)


def _touched(view: ClusterView, changed: frozenset[str]) -> set[str]:
    """Return the units whose views may differ: by their own keys, or by their machine's."""
    touched: set[str] = set()
    for key in changed:
        match keys.split(key):
            case (("units" | "pending"), name):
                touched.add(name)
            case (("placements" | "states"), _, name):
                if name in view.units or keys.unit(name) in view.bad:
                    touched.add(name)
            case (("machines" | "roster"), machine):
                touched |= view.on_machine.get(machine, set()) & view.units.keys()
                touched |= _global_units(view)
            case "machine-spec", _:
                touched |= _global_units(view)
    return touched


def _global_units(view: ClusterView) -> set[str]:
    """Return the global units: a machine more or less makes them more or less complete."""
    specs = {name: view.spec(name, entry.value.spec) for name, entry in view.units.items()}
    return {name for name, spec in specs.items() if spec is not None and spec.requirements.is_global}


def _machines(view: ClusterView, changed: frozenset[str]) -> tuple[MachineView, ...]:
    ids = {
        parts[1]
        for key in changed
        if (parts := keys.split(key))[0] in ("machines", "roster", "machine-spec", "resources", "placements")
        and len(parts) > 1
    }
    return tuple(shown for machine in sorted(ids) if (shown := machine_view(view, machine)) is not None)


def _events(view: ClusterView, changed: frozenset[str], wanted: frozenset[str] | None) -> tuple[Happening, ...]:
    entries = (view.events[key] for key in changed if key in view.events)
    told = sorted(entries, key=lambda entry: (entry.revision, entry.value.at))
    return tuple(entry.value for entry in told if wanted is None or entry.value.unit in wanted)
