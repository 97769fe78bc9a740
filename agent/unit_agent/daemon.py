"""The daemon: a real clock, etcd, this host's drivers, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from unit_agent import machine, specifiers
from unit_agent.agent import Agent, raise_refusal
from unit_agent.checks.duty import ChecksDuty
from unit_agent.checkup import CheckupDuty
from unit_agent.driver import Driver
from unit_agent.drivers.docker import DockerDriver
from unit_agent.drivers.process import ProcessDriver
from unit_agent.drivers.unit_cgroup import Cgroups
from unit_agent.duty import Context, Duty
from unit_agent.images.duty import images
from unit_agent.images.underway import Underway
from unit_agent.joined import way_to_etcd
from unit_agent.listener import serving, socket_app, tcp_app
from unit_agent.local_copy import DirectoryCopy, read_record
from unit_agent.logs.collect import logs
from unit_agent.logs.shipper import Shipper
from unit_agent.metrics.duty import MetricsDuty
from unit_agent.metrics.instruments import Instruments
from unit_agent.policy import Guard
from unit_agent.relay import Relay
from unit_agent.resources.duty import FiguresDuty
from unit_agent.resources.meter import Meter, capacity
from unit_agent.scenes.duty import ScenesDuty
from unit_agent.secrets.delivery import InMemory
from unit_agent.secrets.machine_key import MachineKey, machine_key
from unit_agent.settings import AgentConfig
from unit_agent.shaping.duty import Shaping
from unit_agent.slim import keep_slim, share_arenas
from unit_agent.strict.deadlines import Deadlines
from unit_agent.strict.register import DirectoryRegister
from unit_agent.sync import WANTED, KeptWanted
from unit_agent.timings import TIMINGS
from unitfleet.errors import InvalidConfig, Refused
from unitfleet.etcd.store import EtcdStore
from unitfleet.listening import bind_tcp, bind_unix
from unitfleet.measured import MeasuredStore
from unitfleet.model import Capacity
from unitfleet.service_manager import ServiceManager
from unitfleet.signals import until_told
from unitfleet.tls import Contexts

logger = logging.getLogger(__name__)

DUTIES: tuple[Callable[[Context], Duty], ...] = (
    FiguresDuty,
    MetricsDuty,
    images,
    ChecksDuty,
    ScenesDuty,
    Shaping,
    logs,
    Shipper.make,
    CheckupDuty,
)
"""What this agent does beside running units."""

LOOK_FOR_DOCKER_S = 5.0

MakeDocker = Callable[[str], Driver]
"""Makes the docker driver for a cluster's id."""


async def serve(config: AgentConfig) -> None:
    """Run an agent until SIGTERM or SIGINT. Units, lease and presence are left alone.

    Raises `InvalidConfig` when it can't begin, `Refused` when its identity is in use elsewhere.
    """
    cluster_key = config.cluster_key()
    metrics_token = config.metrics_token()
    share_arenas()
    with _alone(config.state_dir):
        async with contextlib.AsyncExitStack() as stack:
            listening = stack.enter_context(bind_tcp(*config.listen_address))
            instruments = Instruments()
            local = DirectoryCopy(config.state_dir)
            rng = random.SystemRandom()
            facts, key = await _facts(config, local, rng, listening.getsockname()[1])
            stack.enter_context(_alone_as(facts.id, config.state_dir))
            tls = await _identity(config, facts.id, rng)
            etcd = await way_to_etcd(config)
            store = MeasuredStore(
                EtcdStore(etcd.endpoints, tls=etcd.tls, probe_s=config.profile.probe_s), instruments.stored
            )
            stack.push_async_callback(store.close)
            kept = await read_record(local, WANTED, KeptWanted)
            cluster = kept.cluster if kept and kept.machine == facts.id else ""
            underway = Underway()
            deadlines = Deadlines(config.profile.ttl_s)
            make_docker = functools.partial(_docker, config, facts, instruments, underway, deadlines)
            drivers = _drivers(config, facts, cluster, make_docker, deadlines)
            agent = Agent(
                store,
                drivers,
                facts,
                local,
                now=time.time,
                rng=rng,
                timings=TIMINGS[config.profile],
                measure=_meter(config, facts).measure,
                starts_at_once=config.starts_at_once,
                permit=Guard(facts.name, facts.policy, config.docker_socket).refusal,
                private_key=key.private,
                delivery=InMemory(config.secrets_dir, facts.id),
                deadlines=deadlines,
                register=DirectoryRegister(config.strict_dir / facts.id, facts.boot_id, deadlines),
            )
            stack.push_async_callback(_close, agent)
            context = Context(agent, store, config, instruments, underway, tls)
            agent.duties += [make(context) for make in DUTIES]
            if tls is not None:
                from unit_agent.identity import IdentityDuty

                agent.duties.append(IdentityDuty(context, tls))
            if config.drain_on_notice:
                from unit_agent.termination.duty import TerminationDuty

                agent.duties.append(TerminationDuty(context))
            app = tcp_app(agent, cluster_key, metrics_token, tls=tls is not None)
            await stack.enter_async_context(serving(app, listening, tls.server if tls else None))
            if config.socket:
                relay = Relay(store, local, tls.anonymous if tls else None)
                await stack.enter_async_context(_local_socket(agent, relay, Path(config.socket)))
            logger.info(
                "began as machine %s (%s), asked on %s:%d",
                facts.id,
                facts.name,
                config.listen_address[0],
                facts.port,
            )
            manager = ServiceManager(os.environ)
            manager.ready(f"machine {facts.name} ({facts.id})")
            told = await until_told(_run(agent, config, make_docker, manager), (signal.SIGTERM, signal.SIGINT))
            manager.stopping()
            logger.info("stopped by %s; units run on", told)


async def _run(agent: Agent, config: AgentConfig, make_docker: MakeDocker, manager: ServiceManager) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(manager.keep_awake(), name="watchdog")
            tasks.create_task(keep_slim(), name="slim")
            if config.may_use("docker") and "docker" not in agent.copies.drivers:
                tasks.create_task(_await_docker(agent, config, make_docker), name="docker")
            await agent.run()
    except BaseExceptionGroup as group:
        raise_refusal(group)
        raise


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Hold the state directory; raises `InvalidConfig` when another agent does."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidConfig(
            f"cannot use {state_dir}: {why}", hint="give --state-dir a directory that this user can write"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InvalidConfig(
            f"cannot use {state_dir}: another agent runs there", hint="give --state-dir another directory"
        ) from error
    finally:
        os.close(lock)


@contextlib.contextmanager
def _alone_as(machine_id: str, state_dir: Path) -> Iterator[None]:
    """Hold the machine's id on this host; raises `Refused` when another agent, with a copy of its state, does.

    The store can't tell them apart: to it the second would be the first, started again. A name in the abstract
    namespace of sockets goes with the process that holds it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        try:
            held.bind(f"\0unitfleet-agent-{machine_id}")
        except OSError as error:
            raise Refused(
                f"cannot join as machine {machine_id}: another agent on this host does",
                hint=f"{state_dir} was copied: remove machine.json there to join as a machine of its own",
            ) from error
        yield


async def _identity(config: AgentConfig, machine_id: str, rng: random.Random) -> Contexts | None:
    """Return what this machine shows and trusts; None where it has no identity and is to have none."""
    if not config.has_tls:
        return None
    from unit_agent.identity import joined

    return await joined(config, machine_id, now=time.time, rng=rng)


async def _facts(
    config: AgentConfig, local: DirectoryCopy, rng: random.Random, port: int
) -> tuple[machine.Facts, MachineKey]:
    """Return what this machine is, and its key; raises `InvalidConfig`."""
    host = machine.fingerprint()
    try:
        identity = await machine.identify(local, host, rng)
        key = await machine_key(local, identity.id)
    except OSError as error:
        raise InvalidConfig(f"cannot use {config.state_dir}: {error}") from error
    boot_id = machine.boot_id()
    account = specifiers.of_account(os.geteuid(), os.getegid(), os.environ)
    facts = machine.Facts(
        id=identity.id,
        name=config.name,
        boot_id=boot_id,
        fingerprint=identity.fingerprint.digest,
        address=config.address or machine.source_address(),
        port=port,
        metadata=config.metadata,
        versions=machine.versions(),
        capacity=_capacity(config),
        specifiers={**specifiers.of_host(identity.id, boot_id), **account},
        policy=config.host_policy,
        public_key=key.public,
    )
    return facts, key


def _capacity(config: AgentConfig) -> Capacity:
    address = config.address or machine.source_address()
    return capacity(config.state_dir, egress=config.egress_rate, ingress=config.ingress_rate, address=address)


def _meter(config: AgentConfig, facts: machine.Facts) -> Meter:
    egress, ingress = config.egress_rate, config.ingress_rate
    return Meter(facts.id, config.state_dir, egress=egress, ingress=ingress, address=facts.address)


def _drivers(
    config: AgentConfig, facts: machine.Facts, cluster: str, make_docker: MakeDocker, deadlines: Deadlines
) -> list[Driver]:
    """Return the drivers that can be had at once: docker's labels need to know the cluster."""
    drivers: list[Driver] = []
    if config.may_use("process"):
        cgroups = Cgroups(facts.id, facts.capacity.memory)
        boot = facts.boot_id
        drivers.append(
            ProcessDriver(config.state_dir, facts.name, boot_id=boot, cgroups=cgroups, deadlines=deadlines)
        )
    if cluster and ("docker" in config.drivers or (config.may_use("docker") and _answers(config.docker_socket))):
        drivers.append(make_docker(cluster))
    return drivers


def _docker(
    config: AgentConfig,
    facts: machine.Facts,
    instruments: Instruments,
    underway: Underway,
    deadlines: Deadlines,
    cluster: str,
) -> Driver:
    return DockerDriver(
        facts.id,
        facts.name,
        cluster,
        facts.address,
        socket=config.docker_socket,
        pulls_at_once=config.pulls_at_once,
        registry_auth=config.registry_auth,
        instruments=instruments,
        underway=underway,
        deadlines=deadlines,
        memory=config.state_dir / "docker",
    )


async def _await_docker(agent: Agent, config: AgentConfig, make_docker: MakeDocker) -> None:
    """Take the docker driver in once the cluster is known and, unless it is asked for by name, it answers."""
    while True:
        named = "docker" in config.drivers
        if agent.sync.cluster and (named or await asyncio.to_thread(_answers, config.docker_socket)):
            agent.add_driver(make_docker(agent.sync.cluster))
            logger.info("took in the docker driver at %s", config.docker_socket)
            return
        await asyncio.sleep(LOOK_FOR_DOCKER_S if agent.sync.cluster else 0.2)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


async def _close(agent: Agent) -> None:
    for name in agent.copies.drivers:
        driver = agent.copies.driver(name)
        if driver is not None:
            await driver.close()


@contextlib.asynccontextmanager
async def _local_socket(agent: Agent, relay: Relay, path: Path) -> AsyncIterator[None]:
    with bind_unix(path) as listening:
        try:
            async with serving(socket_app(agent, relay), listening):
                yield
        finally:
            os.unlink(path)
