"""`unit-master`: the cache, the API and the election, in one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from unit_master.api.backend import Backend
from unit_master.api.server import AccessLog, make_app
from unit_master.cache import Cache
from unit_master.changes import Changer
from unit_master.leader import Leader
from unit_master.orders import Orders
from unit_master.secrets import read_or_make
from unit_master.settings import MasterConfig
from unitfleet import codec, keys
from unitfleet.election import Election, Term
from unitfleet.errors import StoreError
from unitfleet.etcd.store import EtcdStore
from unitfleet.listening import bind_tcp, bind_unix
from unitfleet.model import Cluster
from unitfleet.signals import until_told
from unitfleet.store import Put, Store, absent

logger = logging.getLogger(__name__)

RETRY_S = 1.0
SHUTDOWN_S = 2.0


class Master:
    """One master over any store. `run` serves and campaigns until cancelled, then resigns."""

    def __init__(
        self,
        store: Store,
        config: MasterConfig,
        *,
        token: str,
        cluster_key: str,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._config = config
        self._token = token
        self._cluster_key = cluster_key
        self._now = now
        self._rng = rng
        self.cache = Cache(store)
        self.addresses: tuple[str, ...] = ()
        """Where the API answers, once `started` is set."""
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Serve, and lead when elected. Raises `InvalidConfig` when the API can't listen."""
        async with self._serving() as self.addresses:
            self.started.set()
            election = Election(self._store, self._config.name, self.addresses, now=self._now, rng=self._rng)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.cache.run(), name="cache")
                tasks.create_task(self._found_cluster(), name="found cluster")
                tasks.create_task(election.run(self._lead), name="election")

    async def _lead(self, term: Term) -> None:
        grace_s = self._config.profile.grace_s
        await Leader(self._store, self.cache, term, now=self._now, grace_s=grace_s).run()

    async def _found_cluster(self) -> None:
        """Make the cluster's id if there is none, and say which store this is."""
        while True:
            try:
                status = await self._store.status()
                cluster = Cluster(id=f"{self._rng.getrandbits(128):032x}", created_at=self._now())
                made = await self._store.txn([absent(keys.CLUSTER)], [Put(keys.CLUSTER, codec.encode(cluster))])
                break
            except StoreError as error:
                logger.warning("could not reach the store: %s", error)
                await asyncio.sleep(RETRY_S)
        if made.succeeded:
            logger.info("founded cluster %s", cluster.id)
        logger.info("connected to etcd %s", status.version)
        fault = known_fault(status.version)
        if fault:
            logger.warning("etcd %s: %s", status.version, fault)

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[tuple[str, ...]]:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            backend = Backend(
                name=self._config.name,
                cache=self.cache,
                changer=Changer(self._store, self.cache, now=self._now, rng=self._rng),
                orders=Orders(self._store, self.cache, now=self._now),
                session=session,
                cluster_key=self._cluster_key,
                now=self._now,
                grace_s=self._config.profile.grace_s,
            )
            async with contextlib.AsyncExitStack() as runners:
                addresses = [await runners.enter_async_context(_tcp(make_app(backend, self._token), self._config))]
                if self._config.socket:
                    path = Path(self._config.socket)
                    addresses.append(await runners.enter_async_context(_unix(make_app(backend, None), path)))
                logger.info("serving the API on %s", " and ".join(addresses))
                yield tuple(addresses)


@contextlib.asynccontextmanager
async def _runner(app: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log_class=AccessLog,
        access_log=logging.getLogger("unit_master.api.access"),
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _tcp(app: web.Application, config: MasterConfig) -> AsyncIterator[str]:
    with bind_tcp(*config.address) as listening:
        async with _runner(app) as runner:
            await web.SockSite(runner, listening).start()
            host, port, *_ = listening.getsockname()
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.asynccontextmanager
async def _unix(app: web.Application, path: Path) -> AsyncIterator[str]:
    with bind_unix(path) as listening:
        try:
            async with _runner(app) as runner:
                await web.SockSite(runner, listening).start()
                yield f"unix://{path}"
        finally:
            os.unlink(path)


def known_fault(version: str) -> str:
    """Return what is known to be wrong with a version of etcd, "" when nothing is."""
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split("-")[0].split("."))
    if numbers[:2] == (3, 4):
        return "3.4 can revoke leases that are renewed in time; 3.5 or 3.6 is recommended"
    if (3, 5, 0) <= numbers[:3] <= (3, 5, 2):
        return "3.5.0 to 3.5.2 can lose data when killed; upgrade it"
    if numbers[:2] < (3, 4) and len(numbers) > 1:
        return "older than 3.4, which is not tested"
    return ""


async def serve(config: MasterConfig) -> None:
    """Run a master on etcd until SIGTERM or SIGINT: the API closes, the leadership is given back."""
    token = read_or_make(config.token_path)
    cluster_key = read_or_make(config.cluster_key_path)
    store = EtcdStore(config.etcd)
    rng = random.SystemRandom()
    master = Master(store, config, token=token, cluster_key=cluster_key, now=time.time, rng=rng)
    try:
        told = await until_told(master.run(), (signal.SIGTERM, signal.SIGINT))
        logger.info("stopped by %s", told)
    finally:
        await store.close()
