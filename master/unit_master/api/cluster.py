"""The cluster as a whole, this master's health, and its version."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib.metadata import version

import msgspec
from aiohttp import web

from unit_master.api.backend import BACKEND, ApiError, Backend, answer, backend_at_revision
from unit_master.etcd_roles.protecting import Protecting
from unit_master.machines import Clocks, plan_machines
from unit_master.views import Views, machine_views
from unitfleet.api import API, ClusterStatus, Revision
from unitfleet.errors import StoreUnavailable
from unitfleet.model import BrakeOrder, MachineStatus


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What a master says of itself."""

    api: str
    version: str
    master: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`/healthz`: the process answers. `/readyz`: it also knows the cluster, and the store answered lately."""

    status: str


async def show(request: web.Request) -> web.Response:
    """Return how the cluster is, with every unit that is not as wanted."""
    backend = await backend_at_revision(request)
    return answer(_status(backend))


async def hold(request: web.Request) -> web.Response:
    """Stop the leader from declaring machines lost."""
    return answer(Revision(rev=await request.app[BACKEND].orders.brake(BrakeOrder.HOLD)), 202)


async def release(request: web.Request) -> web.Response:
    """Let the leader act on the losses known by now."""
    return answer(Revision(rev=await request.app[BACKEND].orders.brake(BrakeOrder.RELEASE)), 202)


async def protect_etcd(request: web.Request) -> web.Response:
    """Let etcd ask who writes what: each identity its own keys and no others."""
    return answer(await _protecting(request).on())


async def unprotect_etcd(request: web.Request) -> web.Response:
    """Let etcd ask nobody any more."""
    return answer(await _protecting(request).off())


async def show_version(request: web.Request) -> web.Response:
    """Return the version of this master."""
    return answer(Version(api=API, version=version("unitfleet"), master=request.app[BACKEND].name))


async def healthy(request: web.Request) -> web.Response:
    """Say that this process answers."""
    return answer(Health(status="ok"))


async def ready(request: web.Request) -> web.Response:
    """Say whether this master knows the cluster as it is now; 503 while it does not."""
    cache = request.app[BACKEND].cache
    if not cache.synced:
        raise StoreUnavailable("cannot serve yet: the store has not been read", hint="look at the store's health")
    if not cache.ready:
        raise StoreUnavailable(f"cannot serve fresh answers: the store is silent for {cache.stale_s():.0f} s")
    return answer(Health(status="ok"))


def _protecting(request: web.Request) -> Protecting:
    protecting = request.app[BACKEND].protecting
    if protecting is None:
        raise ApiError("refused", "cannot protect the store: it is no etcd")
    return protecting


def _status(backend: Backend) -> ClusterStatus:
    view = backend.cache.view
    views = Views(view)
    units = [shown for name in views.names() if (shown := views.unit(name)) is not None]
    machines = machine_views(view)
    leader = view.leader.value if view.leader else None
    store = backend.cache.store_status
    brake = plan_machines(view, _clocks(backend)).brake
    return ClusterStatus(
        id=view.cluster.value.id if view.cluster else "",
        rev=view.revision,
        leader=leader.name if leader else "",
        leader_since=leader.since if leader else 0.0,
        masters=tuple(sorted({backend.name, *view.masters} | ({leader.name} if leader else set()))),
        store_version=store.version if store else "",
        store_size=store.db_size if store else 0,
        machines=dict(Counter(machine.status for machine in machines)),
        units=dict(Counter(unit.phase for unit in units)),
        brake=brake.mode,
        brake_why=brake.why,
        suspect=tuple(machine.name for machine in machines if machine.status == MachineStatus.SUSPECT),
        lost=tuple(machine.name for machine in machines if machine.status == MachineStatus.LOST),
        attention=tuple(unit for unit in units if not unit.ok or unit.pending is not None),
        unreadable=tuple(view.bad[key] for key in sorted(view.bad)),
    )


def _clocks(backend: Backend) -> Clocks:
    """Return what this master measured; the leader's own figures differ by a moment."""
    at = asyncio.get_running_loop().time()
    absent_for = {machine: at - since for machine, since in backend.cache.absent_since.items()}
    lost_for = backend.cache.lost_for()
    return Clocks(backend.now(), absent_for, {}, backend.grace_s, lost_for=lost_for)
