"""What one container shows, read from the Engine's own words; and what follows from how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from signal import Signals
from typing import Any

import msgspec

from unit_agent.causes import outlived_words
from unit_agent.driver import SYSTEM_WORDS, Copy
from unit_agent.drivers import docker_request as written
from unit_agent.drivers.docker_limits import left_out
from unit_agent.drivers.docker_logs import parse_time
from unit_agent.drivers.docker_request import Kept
from unit_agent.restart import EXITED, Ended, Exit, RestartAfter
from unitfleet.model import Cause, CopyPhase, Port
from unitfleet.spec import ServiceType

_SIGNALLED = 128  # an exit code above it stands for a signal, as in a shell
_LOOPBACK = "127.0.0.1"
_EVERY_ADDRESS = ("", "0.0.0.0", "::")
# A daemon that stops gives its containers their stop timeouts, one that comes back ends what it finds running:
# what ended this long before is taken to have ended with it.
_WITH_THE_ENGINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A container as `GET /containers/<id>/json` showed it; times in seconds since 1970, 0.0: never."""

    id: str
    name: str
    labels: Mapping[str, str]
    status: str  # created, running, paused, restarting, removing, exited, dead
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    created: float
    started: float
    finished: float
    health: str
    memory_limit: int
    tasks_max: int
    left_out: tuple[str, ...]  # limits of its unit that the Engine did not take
    host_network: bool
    own_address: str  # on the container's first network that has one
    ports: tuple[tuple[str, Port], ...]  # with the host's address that each is bound to
    kept: Kept
    logs: tuple[str, str, int] = ("", "", 1)  # log driver, its file, how many of these it keeps
    said_files: bool = False  # it complained of open files as it failed
    said_tasks: bool = False  # it could not fork

    @property
    def unit(self) -> str:
        """Return the unit it is a copy of."""
        return self.labels[written.UNIT]

    @property
    def running(self) -> bool:
        """Whether a process of it may exist."""
        return self.status in ("running", "paused", "restarting")

    @property
    def ended(self) -> bool:
        """Whether it ran, or tried to, and does not now."""
        return self.status in ("exited", "dead") or (self.status == "created" and bool(self.error))

    @property
    def stopped_on_order(self) -> bool:
        """Whether it carries the mark of a stop that was ordered."""
        return self.name.endswith(written.STOPPED_MARK)

    @property
    def run(self) -> tuple[str, float, float, str]:
        """Return what tells one run and its end from every other."""
        return self.id, self.started, self.finished, self.error


@dataclass(frozen=True, slots=True)
class HostTimes:
    """When the host booted, when its Engine started, and when the Engine was last heard (inf: it still is)."""

    boot: float = 0.0
    engine: float = 0.0
    heard: float = float("inf")


def read(inspected: Mapping[str, Any]) -> Seen:
    """Return what an inspected container shows."""
    state, config, host = inspected["State"], inspected["Config"], inspected["HostConfig"]
    labels = config.get("Labels") or {}
    health = (state.get("Health") or {}).get("Status", "")
    kept = read_kept(labels)
    return Seen(
        id=inspected["Id"],
        name=inspected["Name"].removeprefix("/"),
        labels=labels,
        status=state["Status"],
        pid=state["Pid"],
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        error=state["Error"],
        created=parse_time(inspected["Created"]),
        started=parse_time(state["StartedAt"]),
        finished=parse_time(state["FinishedAt"]),
        health="" if health == "none" else health,
        memory_limit=host.get("Memory") or 0,
        tasks_max=max(0, host.get("PidsLimit") or 0),
        left_out=left_out(kept.limited, host),
        host_network=host.get("NetworkMode") == "host",
        own_address=_own_address(inspected.get("NetworkSettings") or {}),
        ports=_ports((inspected.get("NetworkSettings") or {}).get("Ports") or {}),
        kept=kept,
        logs=_logs(inspected),
    )


def _logs(inspected: Mapping[str, Any]) -> tuple[str, str, int]:
    config = inspected["HostConfig"].get("LogConfig") or {}
    most = str((config.get("Config") or {}).get("max-file", ""))
    return config.get("Type") or "", inspected.get("LogPath") or "", int(most) if most.isdecimal() else 1


def log_files(seen: Seen) -> tuple[str, int] | None:
    """Return the path of a container's log and how many files its Engine keeps; None when we can't read these.

    What other drivers keep is no business of others; the path is there once the container was started.
    """
    kind, path, most = seen.logs
    return (path, most) if kind == "json-file" and path else None


def read_kept(labels: Mapping[str, str]) -> Kept:
    """Return what the container kept of its unit's text; defaults when an older agent wrote otherwise."""
    try:
        return msgspec.json.decode(labels.get(written.KEPT, "{}"), type=Kept)
    except msgspec.MsgspecError:
        return Kept()


def seen_in_list(entry: Any) -> Seen:
    """Return what `GET /containers/json` alone tells of a container."""
    labels = entry["Labels"]
    return Seen(
        id=entry["Id"],
        name=str(entry["Names"][0]).removeprefix("/"),
        labels=labels,
        status=entry["State"],
        pid=0,
        exit_code=0,
        oom_killed=False,
        error="",
        created=float(entry["Created"]),
        started=0.0,
        finished=0.0,
        health="",
        memory_limit=0,
        tasks_max=0,
        left_out=(),
        host_network=False,
        own_address="",
        ports=(),
        kept=read_kept(labels),
    )


def exit_of(seen: Seen, cause: str = "") -> Exit:
    """Return how the container's main process ended, as `unit_agent.restart` reads it."""
    oneshot = seen.kept.type is ServiceType.ONESHOT
    if seen.error:  # it was refused at its start; the Engine forgets it at the next one that works
        return Exit(seen.exit_code or 1, cause=cause or EXITED, command=oneshot)
    try:
        signal = Signals(seen.exit_code - _SIGNALLED).name
    except ValueError:
        return Exit(seen.exit_code, cause=cause, command=oneshot)
    return Exit(seen.exit_code, signal, cause=cause, command=oneshot)


def why_ended(seen: Seen, why: str) -> str:
    """Return the reason of an end for the user, with the Engine's words if it could not start it."""
    if seen.error:
        return f"{seen.error}: {why}"
    return why


def ended_with_host(seen: Seen, host: HostTimes) -> bool:
    """Tell whether the host or its Engine ended this run, rather than the unit itself."""
    if not seen.ended or not seen.started:
        return False
    if seen.started < host.boot:
        return True
    if not seen.started < host.engine or seen.finished > host.engine:
        return False
    return seen.finished >= min(host.engine, host.heard) - _WITH_THE_ENGINE_S


def copy_of(
    seen: Seen,
    *,
    address: str,
    verdict: RestartAfter | Ended | None,
    starting: bool = False,
    stopping: bool = False,
    restarts: int = 0,
    cause: Cause = Cause.NONE,
    oom_kills: int = 0,
    note: str = "",
) -> Copy:
    """Return the copy that a container is. `verdict`: what follows from its end, None when it did not end."""
    phase, message = _phase(seen, verdict, starting, stopping)
    if phase is CopyPhase.RUNNING:
        message = message or _remarks(seen, oom_kills)
    active, sub = SYSTEM_WORDS[phase]
    if phase is CopyPhase.FINISHED and seen.kept.remain_after_exit:
        active, sub = "active", "exited"
    ports = () if not seen.running else tuple(port for _, port in seen.ports)
    return Copy(
        unit=seen.unit,
        driver="docker",
        id=seen.id,
        spec=seen.labels.get(written.SPEC, ""),
        incarnation=seen.labels.get(written.INCARNATION, ""),
        epoch=_number(seen.labels.get(written.EPOCH, "")),
        restart=_number(seen.labels.get(written.RESTART, "")),
        phase=phase,
        active=active,
        sub=sub,
        health=seen.health if seen.running else "",
        pid=seen.pid if seen.running else 0,
        address=_address(seen, address) if seen.running else "",
        own_address="" if not seen.running else _LOOPBACK if seen.host_network else seen.own_address,
        ports=ports,
        image=seen.labels.get(written.IMAGE, ""),
        since=(seen.started if seen.running else seen.finished) or seen.created,
        restarts=0 if phase is CopyPhase.LOADED else restarts,  # they are counted from a start on order
        cause=cause,
        oom_kills=oom_kills,
        message=note or message,
    )


def _phase(
    seen: Seen, verdict: RestartAfter | Ended | None, starting: bool, stopping: bool
) -> tuple[CopyPhase, str]:
    if starting and not stopping:
        return CopyPhase.STARTING, f"waits for its health check: {seen.health}" if seen.health else ""
    if seen.running:
        if stopping:
            return CopyPhase.STOPPING, ""
        if seen.kept.notify_healthy and not seen.health:
            return CopyPhase.RUNNING, "Notify=healthy, but neither the unit nor its image has a health check"
        return CopyPhase.RUNNING, "paused from outside" if seen.status == "paused" else ""
    if seen.status == "removing":
        return CopyPhase.STOPPING, "the Engine removes it"
    match verdict:
        case RestartAfter():
            return CopyPhase.RESTARTING, why_ended(seen, verdict.why)
        case Ended():
            return CopyPhase(verdict.phase), why_ended(seen, verdict.why)
        case None:
            return CopyPhase.LOADED, ""


def _remarks(seen: Seen, oom_kills: int) -> str:
    """Return what is to be said of a copy that runs."""
    found = []
    if oom_kills:
        found.append(outlived_words(oom_kills, 0, seen.memory_limit))
    if seen.left_out:
        keys = ", ".join(f"{key}=" for key in seen.left_out)
        found.append(f"{keys} is not kept here: this host's kernel or Engine has no such limit")
    return "; ".join(found)


def _address(seen: Seen, machine_address: str) -> str:
    if seen.host_network:
        return machine_address
    bound = {address for address, _ in seen.ports}
    if not bound:
        return ""
    return bound.pop() if len(bound) == 1 and not bound & {*_EVERY_ADDRESS} else machine_address


def _own_address(settings: Mapping[str, Any]) -> str:
    networks = (settings.get("Networks") or {}).values()
    return next((found for one in networks if (found := one.get("IPAddress") or one.get("GlobalIPv6Address"))), "")


def _ports(published: Mapping[str, Any]) -> tuple[tuple[str, Port], ...]:
    found: dict[Port, str] = {}
    for inside, bindings in published.items():
        number, _, protocol = inside.partition("/")
        for binding in bindings or ():
            if binding.get("HostPort"):
                port = Port(host=int(binding["HostPort"]), container=int(number), protocol=protocol or "tcp")
                address = binding.get("HostIp", "")
                # IPv4 and IPv6 are two bindings of one port
                found[port] = "" if address in _EVERY_ADDRESS else address
    order = sorted(found, key=lambda port: (port.container, port.protocol, port.host))
    return tuple((found[port], port) for port in order)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
