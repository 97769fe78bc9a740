"""What the Docker Engine is asked to create for a unit, as a pure function; and what is written on a container.

Labels carry the copy's identity and what is needed to stop it and start it again without its unit text. The
Engine's own restart policy is always `no`: what ended is started again by `unit_agent.restart` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from unit_agent.driver import Order
from unit_agent.drivers.docker_limits import asked_of_kernel, resource_config
from unit_agent.encoding import decode_name, encode_name
from unit_agent.secrets.files import file_names
from unitfleet.errors import DriverError
from unitfleet.spec import ContainerSpec, MountSpec, ResourceLimits, RestartPolicy, ServiceSpec, ServiceType

UNIT = "unitfleet.unit"
CONTAINER = "unitfleet.container"  # the name it was made with
CLUSTER = "unitfleet.cluster"
MACHINE = "unitfleet.machine"
EPOCH = "unitfleet.epoch"
SPEC = "unitfleet.spec"
INCARNATION = "unitfleet.incarnation"
RESTART = "unitfleet.restart"
IMAGE = "unitfleet.image"
KEPT = "unitfleet.kept"

STOPPED_MARK = ".stopped"  # ends the name of a container that was stopped on order; unit names don't end so

# bounded, readable by `docker logs`, and its files are readable by us: 30 MB a unit
_LOG_DRIVER = "json-file"
_LOG_BOUNDS = {"max-size": "10m", "max-file": "3"}
_BOUNDED_DRIVERS = ("local", "json-file")

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_RELABEL = ("z", "Z")
_INFINITE = -1
_MACHINE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose containers these are: nothing without both the cluster's and the machine's label is touched."""

    cluster: str
    machine: str
    machine_name: str

    @property
    def filter(self) -> dict[str, list[str]]:
        """Return the Engine's filter for what is ours."""
        return {"label": [f"{CLUSTER}={self.cluster}", f"{MACHINE}={self.machine}"]}

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a container with these labels is ours."""
        return labels.get(CLUSTER) == self.cluster and labels.get(MACHINE) == self.machine and UNIT in labels

    @property
    def name_prefix(self) -> str:
        """Return what our containers' names begin with; machines that share an Engine don't collide."""
        return f"unitfleet-{re.sub('[^A-Za-z0-9]', '', self.machine)[:_MACHINE_DIGITS]}-"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a container keeps of its unit's text, in the label `unitfleet.kept`."""

    type: ServiceType = ServiceType.SIMPLE
    restart: RestartPolicy = RestartPolicy()
    stop_timeout_s: float | None = 90.0
    start_timeout_s: float | None = 90.0
    notify_healthy: bool = False
    remain_after_exit: bool = False
    limited: tuple[str, ...] = ()  # fields of HostConfig that its limits set, taken by the Engine or not


def container_name(owner: Owner, order: Order) -> str:
    """Return the container's name: `ContainerName=`, or the machine's prefix and the unit's name, encoded."""
    container = _container(order)
    return container.container_name or usual_name(owner, order.placement.unit)


def usual_name(owner: Owner, unit: str) -> str:
    """Return the name of a unit's container that did not ask for another."""
    return owner.name_prefix + encode_name(unit)


def is_copy(labels: Mapping[str, str], name: str) -> bool:
    """Tell whether a container of this name is the one that its labels were written for.

    `docker commit` passes labels on: what somebody runs of an image made from a copy carries them, too.
    """
    plain = name.removeprefix("/").removesuffix(STOPPED_MARK)
    return labels.get(CONTAINER, plain) == plain


def unit_of_name(owner: Owner, name: str) -> str:
    """Return the unit that `container_name` made this name of; raises ValueError for any other name."""
    if not name.startswith(owner.name_prefix):
        raise ValueError(f"cannot read {name!r}: it does not begin with {owner.name_prefix}")
    return decode_name(name.removeprefix(owner.name_prefix).removesuffix(STOPPED_MARK))


def kept(order: Order) -> Kept:
    """Return what the container is to keep of its unit's text."""
    service, container = order.spec.service, _container(order)
    stop = service.timeout_stop_s if container.stop_timeout_s is None else container.stop_timeout_s
    return Kept(
        type=service.type,
        restart=service.restart,
        stop_timeout_s=stop,
        start_timeout_s=service.timeout_start_s,
        notify_healthy=container.notify_healthy,
        remain_after_exit=service.remain_after_exit,
        limited=asked_of_kernel(container, order.spec.limits),
    )


def labels(owner: Owner, order: Order, image: str) -> dict[str, str]:
    """Return the container's labels; a user's label never replaces one of ours."""
    placement = order.placement
    return {
        **dict(_container(order).labels),
        UNIT: placement.unit,
        CONTAINER: container_name(owner, order),
        CLUSTER: owner.cluster,
        MACHINE: owner.machine,
        EPOCH: str(placement.epoch),
        SPEC: placement.spec,
        INCARNATION: placement.incarnation,
        RESTART: str(placement.restart),
        IMAGE: image,
        KEPT: msgspec.json.encode(kept(order)).decode(),
    }


def create_body(
    owner: Owner,
    order: Order,
    *,
    image: str,
    file_environment: Iterable[tuple[str, str]] = (),
    present: Callable[[str], bool] = lambda path: True,
    limits: ResourceLimits | None = None,
    node: Callable[[str], str] = lambda path: path,
) -> dict[str, Any]:
    """Return the body of the Engine's `POST /containers/create`.

    `image` is the digest to run, `file_environment` what EnvironmentFile= said, `present` tells whether a
    device is there, `limits` are the unit's on this machine and `node` gives the disk behind a path. Raises
    `DriverError` for what the Engine has no word for.
    """
    container, service = _container(order), order.spec.service
    stop_timeout = kept(order).stop_timeout_s
    body: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in _environment(owner, order, file_environment).items()],
        "Labels": labels(owner, order, image),
        "ExposedPorts": {f"{port.container}/{port.protocol}": {} for port in container.ports},
        "StopTimeout": _INFINITE if stop_timeout is None else max(0, round(stop_timeout)),
        "HostConfig": _host_config(order.placement.unit, container, service, present, _secrets(order)),
    }
    body["HostConfig"] |= resource_config(container, limits or order.spec.limits, node)
    optional: dict[str, Any] = {
        "Cmd": list(container.exec),
        "User": container.user,
        "WorkingDir": container.working_dir,
        "Hostname": container.hostname,
        "StopSignal": container.stop_signal,
    }
    body.update({key: value for key, value in optional.items() if value})
    if container.entrypoint is not None:
        body["Entrypoint"] = list(container.entrypoint) or [""]  # the Engine's way to clear the image's own
    if container.health is not None:
        health = container.health
        body["Healthcheck"] = {
            "Test": list(health.test),
            "Interval": _nanoseconds(health.interval_s),
            "Timeout": _nanoseconds(health.timeout_s),
            "Retries": health.retries,
            "StartPeriod": _nanoseconds(health.start_period_s),
        }
    return body


def read_environment(text: str) -> list[tuple[str, str]]:
    """Return the variables of an EnvironmentFile=, as Docker and Podman read it: KEY=VALUE lines, no quoting.

    A bare KEY would take the agent's own variable: it is left out.
    """
    lines = (line.lstrip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return [(name.strip(), value) for name, equals, value in pairs if equals and name.strip()]


def _container(order: Order) -> ContainerSpec:
    if order.spec.container is None:
        raise DriverError(f"cannot run {order.placement.unit} in Docker: it has no [Container] section")
    return order.spec.container


def _environment(owner: Owner, order: Order, from_files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Merge as `podman run` does: Environment= wins over EnvironmentFile=; nobody forges our own."""
    placement = order.placement
    return {
        **dict(from_files),
        **dict(_container(order).environment),
        "UNITFLEET_UNIT": placement.unit,
        "UNITFLEET_MACHINE": owner.machine_name,
        "UNITFLEET_EPOCH": str(placement.epoch),
    }


def _host_config(
    unit: str,
    container: ContainerSpec,
    service: ServiceSpec,
    present: Callable[[str], bool],
    secrets: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _log_config(container),
        "PortBindings": _port_bindings(container),
    }
    binds, mounts, tmpfs = _mounts(unit, container.mounts)
    mounts += secrets
    optional: dict[str, Any] = {
        "Binds": binds,
        "Mounts": mounts,
        "Tmpfs": tmpfs,
        "NetworkMode": container.networks[0] if container.networks else "",
        "ShmSize": container.shm_size,
        "Ulimits": _ulimits(container, service),
        "CapAdd": list(container.add_capabilities),
        "CapDrop": list(container.drop_capabilities),
        "Devices": [
            {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions}
            for host, inside, permissions, skip_if_absent in container.devices
            if not (skip_if_absent and not present(host))
        ],
        "ExtraHosts": list(container.add_hosts),
        "Dns": list(container.dns),
        "ReadonlyRootfs": container.read_only,
        "Init": container.run_init,
    }
    config.update({key: value for key, value in optional.items() if value})
    return config


def _secrets(order: Order) -> list[dict[str, Any]]:
    """Return a read-only mount of each secret's file. A mount, unlike a bind, fails where the file is missing."""
    if order.spec.secrets and not order.credentials:
        raise DriverError(f"cannot create {order.placement.unit}: its secrets are not here")
    return [
        {"Type": "bind", "Source": f"{order.credentials}/{name}", "Target": secret.target, "ReadOnly": True}
        for name, secret in zip(file_names(order.spec), order.spec.secrets, strict=True)
    ]


def _port_bindings(container: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in container.ports:
        binding = {"HostIp": port.address, "HostPort": str(port.host) if port.host else ""}
        bindings.setdefault(f"{port.container}/{port.protocol}", []).append(binding)
    return bindings


def _log_config(container: ContainerSpec) -> dict[str, Any]:
    driver = container.log_driver or _LOG_DRIVER
    bounds = _LOG_BOUNDS if driver in _BOUNDED_DRIVERS else {}
    return {"Type": driver, "Config": {**bounds, **dict(container.log_options)}}


def _ulimits(container: ContainerSpec, service: ServiceSpec) -> list[dict[str, Any]]:
    """Merge [Service] Limit*= and Ulimit=, which wins: it was said of the container itself."""
    limits = {name.lower(): limit for name, limit in (*service.limits, *container.ulimits)}
    return [
        {"Name": name, "Soft": _bound(limit.soft), "Hard": _bound(limit.hard)} for name, limit in limits.items()
    ]


def _bound(value: int | None) -> int:
    return _INFINITE if value is None else value


def _mounts(unit: str, specs: Iterable[MountSpec]) -> tuple[list[str], list[dict[str, Any]], dict[str, str]]:
    binds: list[str] = []
    mounts: list[dict[str, Any]] = []
    tmpfs: dict[str, str] = {}
    for spec in specs:
        if spec.kind == "tmpfs":
            options = [option.removeprefix("tmpfs-") for option in spec.options]
            tmpfs[spec.target] = ",".join([*options, *(["ro"] if spec.read_only else [])])
        elif spec.source and any(option in _RELABEL for option in spec.options):
            # relabelling has no word in Mounts; unlike a mount, a bind makes its source when it is absent
            mode = ["ro"] if spec.read_only else []
            binds.append(":".join([spec.source, spec.target, ",".join([*mode, *_plain(spec.options)])]))
        else:
            mounts.append(_mount(unit, spec))
    return binds, mounts, tmpfs


def _plain(options: Iterable[str]) -> list[str]:
    return [option for option in options if option not in ("ro", "rw", "readonly")]


def _mount(unit: str, spec: MountSpec) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": spec.kind, "Target": spec.target, "ReadOnly": spec.read_only}
    if spec.source:
        mount["Source"] = spec.source
    for option in _plain(spec.options):
        word = option.removeprefix("bind-propagation=")
        if spec.kind == "bind" and word in _PROPAGATION:
            mount["BindOptions"] = {"Propagation": word}
        elif spec.kind == "volume" and option in ("nocopy", "volume-nocopy"):
            mount["VolumeOptions"] = {"NoCopy": True}
        else:
            raise DriverError(f"cannot create {unit}: Docker has no option {option!r} for {spec.target}")
    return mount


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
