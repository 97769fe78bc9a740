"""The daemon: a real clock, etcd, this host's drivers, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from unit_agent import machine, specifiers
from unit_agent.agent import Agent, raise_refusal
from unit_agent.driver import Driver
from unit_agent.drivers.docker import DockerDriver
from unit_agent.drivers.process import ProcessDriver
from unit_agent.listener import serving, socket_app, tcp_app
from unit_agent.local_copy import DirectoryCopy, read_record
from unit_agent.relay import Relay
from unit_agent.settings import AgentConfig
from unit_agent.sync import WANTED, KeptWanted
from unit_agent.timings import TIMINGS
from unitfleet.errors import InvalidConfig, Refused
from unitfleet.etcd.store import EtcdStore
from unitfleet.listening import bind_tcp, bind_unix
from unitfleet.signals import until_told

logger = logging.getLogger(__name__)

LOOK_FOR_DOCKER_S = 5.0


async def serve(config: AgentConfig) -> None:
    """Run an agent until SIGTERM or SIGINT. Units, lease and presence are left alone.

    Raises `InvalidConfig` when it can't begin, `Refused` when its identity is in use elsewhere.
    """
    cluster_key = _secret(config.cluster_key_file)
    with _alone(config.state_dir):
        async with contextlib.AsyncExitStack() as stack:
            listening = stack.enter_context(bind_tcp(*config.listen_address))
            store = EtcdStore(config.etcd)
            stack.push_async_callback(store.close)
            local = DirectoryCopy(config.state_dir)
            rng = random.SystemRandom()
            facts = await _facts(config, local, rng, listening.getsockname()[1])
            stack.enter_context(_alone_as(facts.id, config.state_dir))
            kept = await read_record(local, WANTED, KeptWanted)
            cluster = kept.cluster if kept and kept.machine == facts.id else ""
            drivers = _drivers(config, facts, cluster)
            agent = Agent(
                store,
                drivers,
                facts,
                local,
                now=time.time,
                rng=rng,
                timings=TIMINGS[config.profile],
                measure=machine.Meter(facts.id, config.state_dir).measure,
                starts_at_once=config.starts_at_once,
            )
            stack.push_async_callback(_close, agent)
            await stack.enter_async_context(serving(tcp_app(agent, cluster_key), listening))
            if config.socket:
                await stack.enter_async_context(_local_socket(agent, Relay(store, local), Path(config.socket)))
            logger.info(
                "began as machine %s (%s), asked on %s:%d",
                facts.id,
                facts.name,
                config.listen_address[0],
                facts.port,
            )
            told = await until_told(_run(agent, config), (signal.SIGTERM, signal.SIGINT))
            logger.info("stopped by %s; units run on", told)


async def _run(agent: Agent, config: AgentConfig) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            if config.may_use("docker") and "docker" not in agent.copies.drivers:
                tasks.create_task(_await_docker(agent, config), name="docker")
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


def _secret(path: str) -> str:
    if not path:
        return ""
    try:
        secret = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(
            f"cannot use {path}: {error}", hint="copy the key that the masters use: cluster.key in their state"
        ) from error
    if not secret:
        raise InvalidConfig(f"cannot use {path}: it is empty")
    return secret


async def _facts(config: AgentConfig, local: DirectoryCopy, rng: random.Random, port: int) -> machine.Facts:
    host = machine.fingerprint()
    try:
        identity = await machine.identify(local, host, rng)
    except OSError as error:
        raise InvalidConfig(f"cannot use {config.state_dir}: {error}") from error
    boot_id = machine.boot_id()
    account = specifiers.of_account(os.geteuid(), os.getegid(), os.environ)
    return machine.Facts(
        id=identity.id,
        name=config.name,
        boot_id=boot_id,
        fingerprint=identity.fingerprint.digest,
        address=config.address or machine.source_address(),
        port=port,
        metadata=config.metadata,
        versions=machine.versions(),
        capacity=machine.capacity(config.state_dir),
        specifiers={**specifiers.of_host(identity.id, boot_id), **account},
    )


def _drivers(config: AgentConfig, facts: machine.Facts, cluster: str) -> list[Driver]:
    """Return the drivers that can be had at once: docker's labels need to know the cluster."""
    drivers: list[Driver] = []
    if config.may_use("process"):
        drivers.append(ProcessDriver(config.state_dir, facts.name, boot_id=facts.boot_id))
    if cluster and ("docker" in config.drivers or (config.may_use("docker") and _answers(config.docker_socket))):
        drivers.append(_docker(config, facts, cluster))
    return drivers


def _docker(config: AgentConfig, facts: machine.Facts, cluster: str) -> Driver:
    return DockerDriver(facts.id, facts.name, cluster, facts.address, socket=config.docker_socket)


async def _await_docker(agent: Agent, config: AgentConfig) -> None:
    """Take the docker driver in once the cluster is known and, unless it is asked for by name, it answers."""
    while True:
        named = "docker" in config.drivers
        if agent.sync.cluster and (named or await asyncio.to_thread(_answers, config.docker_socket)):
            agent.add_driver(_docker(config, agent.facts, agent.sync.cluster))
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
