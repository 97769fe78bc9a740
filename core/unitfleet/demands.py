"""What a unit's text asks of its host beyond a confined container: its `Demands`, which a host's policy judges."""

from __future__ import annotations

from collections.abc import Iterator

from unitfleet.policy import Account, Demands, plain
from unitfleet.spec import ContainerSpec, ServiceSpec


def demands_of(service: ServiceSpec, container: ContainerSpec | None) -> Demands:
    """Return what a unit asks for. A process without User= counts as root's: the agent's user is mostly root."""
    if container is not None:
        return Demands(
            host_network="host" in container.networks,
            capabilities=tuple(sorted(set(container.add_capabilities))),
            devices=tuple(plain(host) for host, *_ in container.devices),
            mounts=tuple(plain(source) for source in _mounted(container)),
            files=tuple(plain(path) for path, _ in container.environment_files),
        )
    account = _account(service)
    # root reads what it likes; for anybody else the supervisor reads it as root
    files = () if account is Account.ROOT else tuple(plain(path) for path, _ in service.environment_files)
    return Demands(account=account, files=files)


def _mounted(container: ContainerSpec) -> Iterator[str]:
    """Yield the paths of the host that a container sees, those that a volume stands for included."""
    yield from (mount.source for mount in container.mounts if mount.kind == "bind")
    for volume in container.made_volumes:
        yield from (value for key, value in volume.options if key == "device")


def _account(service: ServiceSpec) -> Account:
    """Tell as whom it runs: one command that keeps root's rights (`+`, `!`) makes the unit root's."""
    commands = (
        *service.start_pre,
        *service.start,
        *service.start_post,
        *service.stop,
        *service.stop_post,
        *service.reload,
    )
    as_root = not service.user or _is_root(service.user) or _is_root(service.group)
    return Account.ROOT if as_root or any(command.privileged for command in commands) else Account.NOT_ROOT


def _is_root(name: str) -> bool:
    return name == "root" or (name.isdecimal() and int(name) == 0)
