"""What the process driver can't run, on this host or at all: refused by name when a copy is to be made."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import Callable
from typing import Any

from unit_agent.driver import Order
from unitfleet.errors import DriverError
from unitfleet.spec import ServiceSpec, ServiceType


def refuse(order: Order) -> None:
    """Raise `DriverError` for a unit that needs another driver, a newer host or another user."""
    unit, service = order.placement.unit, order.spec.service
    suffix = unit.rpartition(".")[2]
    if order.spec.container is not None:
        raise DriverError(f"cannot create {unit}: a [Container] section needs the docker driver")
    if suffix != "service":
        raise DriverError(f"cannot create {unit}: only systemd runs a .{suffix} unit")
    if order.spec.secrets and not order.credentials:
        raise DriverError(f"cannot create {unit}: its secrets are not here")
    if not service.start and not (service.type is ServiceType.ONESHOT and service.stop):
        raise DriverError(f"cannot create {unit}: it has no ExecStart=")
    if len(service.start) > 1 and service.type is not ServiceType.ONESHOT:
        raise DriverError(f"cannot create {unit}: several ExecStart= need Type=oneshot")
    for name, _ in service.limits:
        if not hasattr(resource, f"RLIMIT_{name}"):
            raise DriverError(f"cannot create {unit}: this host has no Limit{name}=")
    if os.geteuid() != 0:
        _refuse_others(unit, service)


def _refuse_others(unit: str, service: ServiceSpec) -> None:
    """Raise `DriverError` for a user or group that is not our own: only root may switch."""
    user, group = _name_of(os.geteuid(), pwd.getpwuid), _name_of(os.getegid(), grp.getgrgid)
    why = f"needs an agent that runs as root, not as {user}"
    if service.user not in ("", user, str(os.geteuid())):
        raise DriverError(f"cannot create {unit}: User={service.user} {why}")
    if service.group not in ("", group, str(os.getegid())):
        raise DriverError(f"cannot create {unit}: Group={service.group} {why}")


def _name_of(number: int, entry: Callable[[int], tuple[Any, ...]]) -> str:
    try:
        return str(entry(number)[0])
    except KeyError:
        return str(number)  # an id without an account
