"""`unit-master`: the cache, the API and the election, in one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from unit_master.access.tokens import Tokens
from unit_master.api.admission import end_streams_of_removed, tcp_door, unix_door
from unit_master.api.backend import Backend
from unit_master.api.certified import cut_off
from unit_master.api.server import AccessLog, make_app
from unit_master.archive.archive import Archive
from unit_master.archive.central import CentralSearch
from unit_master.audit.central import AuditSearch
from unit_master.audit.trail import Trail
from unit_master.cache import Cache
from unit_master.changes import Changer
from unit_master.cluster_metrics import ClusterCollector
from unit_master.collection import spare_what_was_read
from unit_master.credentials import Credentials, get_credentials
from unit_master.doctor.etcd_faults import faults_of
from unit_master.etcd_roles.keeper import Keeper
from unit_master.etcd_roles.protecting import Protecting
from unit_master.joins import Joins
from unit_master.leader import Leader
from unit_master.membership import Membership
from unit_master.metrics import MasterMetrics
from unit_master.orders import Orders
from unit_master.peers import Peers
from unit_master.secrets.keep import Secrets
from unit_master.secrets.plan import foreign
from unit_master.settings import MasterConfig
from unitfleet import certificates, codec, identity, keys
from unitfleet.election import Election, Term
from unitfleet.errors import StoreError
from unitfleet.etcd import credentials as etcd_credentials
from unitfleet.etcd.auth import EtcdAuth
from unitfleet.etcd.store import EtcdStore
from unitfleet.findings import Severity
from unitfleet.keyfile import read_or_make, read_or_make_private
from unitfleet.listening import bind_tcp, bind_unix
from unitfleet.measured import MeasuredStore
from unitfleet.model import Cluster
from unitfleet.sealing import public_key
from unitfleet.service_manager import ServiceManager
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
        metrics_token: str = "",
        credentials: Credentials | None = None,
        secrets_key: str = "",
        auth: EtcdAuth | None = None,
        etcd_user: str = "",
        now: Callable[[], float],
        rng: random.Random,
        manager: ServiceManager | None = None,
    ) -> None:
        self._metrics = MasterMetrics()
        self._store = MeasuredStore(store, self._metrics.observe_store)
        self._term: Term | None = None
        self._config = config
        self._token = token
        self._cluster_key = cluster_key
        self._credentials = credentials
        self._metrics_token = metrics_token
        self._secrets_key = secrets_key
        self._now = now
        self._rng = rng
        self._manager = manager or ServiceManager({})
        self.cache = Cache(self._store)
        self._auth = auth
        self._etcd_user = etcd_user
        self._keeper = Keeper(auth, self.cache) if auth is not None else None
        self._archive: Archive | None = None
        self.addresses: tuple[str, ...] = ()
        """Where the API answers, once `started` is set."""
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Serve, and lead when elected. Raises `InvalidConfig` when the API can't listen."""
        async with self._serving() as backend:
            self.addresses = backend.addresses
            self.started.set()
            self._manager.ready(f"the API answers on {' and '.join(self.addresses)}")
            election = Election(self._store, self._config.name, self.addresses, now=self._now, rng=self._rng)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._manager.keep_awake(), name="watchdog")
                tasks.create_task(self.cache.run(), name="cache")
                tasks.create_task(backend.figures.run(), name="figures")
                tasks.create_task(end_streams_of_removed(backend), name="streams of removed tokens")
                tasks.create_task(cut_off(backend), name="cut off")
                if self._credentials is not None and backend.joins is not None:
                    renewal = self._credentials.renewal(backend.joins, self.cache, now=self._now, rng=self._rng)
                    tasks.create_task(renewal.run(), name="renewal")
                tasks.create_task(self._found_cluster(), name="found cluster")
                tasks.create_task(self._membership().run(), name="membership")
                tasks.create_task(self._tell_of_other_key(), name="key for secrets")
                tasks.create_task(self._keep_what_was_read(), name="keep what was read")
                if self._archive is not None:
                    tasks.create_task(self._archive.run(), name="archive")
                tasks.create_task(election.run(self._lead), name="election")

    async def _lead(self, term: Term) -> None:
        self._metrics.led()
        self._term = term
        try:
            grace_s = self._config.profile.grace_s
            leader = Leader(
                self._store,
                self.cache,
                term,
                now=self._now,
                grace_s=grace_s,
                metrics=self._metrics,
                secrets_key=self._secrets_key,
                keeper=self._keeper,
            )
            await leader.run()
        finally:
            self._term = None

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
        for fault in faults_of(status.version):
            log = logger.warning if fault.severity.rank > Severity.NOTE.rank else logger.info
            log("etcd %s: %s", status.version, fault.what)

    async def _keep_what_was_read(self) -> None:
        """Have the records of the first listing spared by garbage collection."""
        await self._until_synced()
        spare_what_was_read()

    async def _until_synced(self) -> None:
        with self.cache.subscribe() as subscription:
            while not self.cache.synced:
                await subscription.next()

    async def _tell_of_other_key(self) -> None:
        """Say once, of a master that began with a key of its own, that it can't hand out what there is."""
        await self._until_synced()
        if self.cache.view.secrets:
            names = foreign(self.cache.view, public_key(self._secrets_key) if self._secrets_key else "")
            if names:
                logger.error(
                    "cannot open %d secrets (%s …): %s holds another key than the one they are sealed to; "
                    "give all masters one --secrets-key-file",
                    len(names),
                    names[0],
                    self._config.secrets_key_path,
                )

    def _membership(self) -> Membership:
        return Membership(
            self._store,
            self._config.name,
            self.addresses,
            archive=self._archive is not None,
            signs=self._credentials is not None and self._credentials.identity.signs,
            etcd_user=self._etcd_user,
            now=self._now,
            rng=self._rng,
        )

    @contextlib.asynccontextmanager
    async def _archiving(self) -> AsyncIterator[Archive | None]:
        """Open the archive meanwhile; a disk that can't be used leaves this master without one."""
        path = self._config.log_store_path
        if path is None:
            yield None
            return
        archive = Archive(
            path, most_bytes=self._config.log_store_bytes, age_s=self._config.log_store_age_s, now=self._now
        )
        try:
            await archive.open()
        except (sqlite3.Error, OSError) as error:
            logger.error("keeping no output of units: cannot use %s: %s", path, error)
            await archive.close()
            yield None
            return
        try:
            yield archive
        finally:
            await archive.close()

    def _joins(self) -> Joins | None:
        if self._credentials is None:
            return None
        admit = self._keeper.admit if self._keeper else None
        return Joins(self._store, self.cache, self._credentials.signing, now=self._now, admit=admit)

    def _protecting(self) -> Protecting:
        return Protecting(
            self._store,
            self.cache,
            self._auth,
            self._keeper,
            user=self._etcd_user,
            by_identity=self._credentials is not None and self._credentials.signing.etcd_by_identity,
            state_dir=self._config.state_dir,
            now=self._now,
        )

    def _names(self) -> tuple[str, ...]:
        """Return what requests may call this master, beside loopback and the address they came to."""
        certified = self._credentials.identity.certificate.hosts if self._credentials else ()
        return (self._config.name, self._config.address[0], *self._config.host_names, *certified)

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[Backend]:
        credentials = self._credentials
        connector = aiohttp.TCPConnector(ssl=credentials.contexts.client) if credentials else None
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            self._archiving() as self._archive,
        ):
            peers = Peers(session, self._cluster_key, tls=credentials is not None)
            trail = Trail(self._config.state_dir)
            backend = Backend(
                name=self._config.name,
                cache=self.cache,
                changer=Changer(self._store, self.cache, now=self._now, rng=self._rng),
                orders=Orders(self._store, self.cache, now=self._now),
                tokens=Tokens(self._store, self.cache, now=self._now),
                secrets=Secrets(self._store, self.cache, self._secrets_key, now=self._now),
                trail=trail,
                audit=AuditSearch(self._config.name, trail, self.cache, peers),
                peers=peers,
                session=session,
                cluster_key=self._cluster_key,
                now=self._now,
                grace_s=self._config.profile.grace_s,
                metrics=self._metrics,
                metrics_token=self._metrics_token,
                archive=CentralSearch(self._config.name, self._archive, self.cache, peers),
                joins=self._joins(),
                protecting=self._protecting(),
            )
            self._metrics.add(
                ClusterCollector(
                    self._config.name, self.cache, self._store, lambda: len(backend.streams), lambda: self._term
                )
            )
            async with contextlib.AsyncExitStack() as runners:
                door = tcp_door(backend, self._token, self._names(), self._config.bounds)
                served = _tcp(make_app(backend, door), self._config, credentials)
                addresses = [await runners.enter_async_context(served)]
                if self._config.socket:
                    path = Path(self._config.socket)
                    addresses.append(
                        await runners.enter_async_context(_unix(make_app(backend, unix_door()), path))
                    )
                logger.info("serving the API on %s", " and ".join(addresses))
                backend.addresses = tuple(addresses)
                yield backend


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
async def _tcp(app: web.Application, config: MasterConfig, credentials: Credentials | None) -> AsyncIterator[str]:
    with bind_tcp(*config.address) as listening:
        async with _runner(app) as runner:
            context = credentials.contexts.server if credentials else None
            await web.SockSite(runner, listening, ssl_context=context).start()
            host, port, *_ = listening.getsockname()
            if credentials:
                host = credentials.known_as(host)
            yield f"http{'s' if credentials else ''}://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.asynccontextmanager
async def _unix(app: web.Application, path: Path) -> AsyncIterator[str]:
    with bind_unix(path) as listening:
        try:
            async with _runner(app) as runner:
                await web.SockSite(runner, listening).start()
                yield f"unix://{path}"
        finally:
            os.unlink(path)


async def serve(config: MasterConfig) -> None:
    """Run a master on etcd until SIGTERM or SIGINT: the API closes, the leadership is given back."""
    token = read_or_make(config.token_path)
    manager = ServiceManager(os.environ)
    secrets_key = read_or_make_private(config.secrets_key_path)
    rng = random.SystemRandom()
    credentials = await get_credentials(config, now=time.time, rng=rng) if config.has_tls else None
    cluster_key = "" if credentials else read_or_make(config.cluster_key_path)  # by TLS nobody asks for it
    tls = etcd_credentials.source(config.etcd_ca, config.etcd_cert, config.etcd_key)
    store = EtcdStore(config.etcd, tls=tls)
    auth = EtcdAuth(config.etcd, tls) if tls and config.etcd_cert else None
    master = Master(
        store,
        config,
        token=token,
        cluster_key=cluster_key,
        credentials=credentials,
        secrets_key=secrets_key,
        auth=auth,
        etcd_user=certificates.read(identity.read_file(Path(config.etcd_cert))).name if config.etcd_cert else "",
        metrics_token=read_or_make(Path(config.metrics_token_file)) if config.metrics_token_file else "",
        now=time.time,
        rng=rng,
        manager=manager,
    )
    try:
        told = await until_told(master.run(), (signal.SIGTERM, signal.SIGINT))
        logger.info("stopped by %s", told)
        manager.stopping()
    finally:
        await store.close()
        if auth is not None:
            await auth.close()
