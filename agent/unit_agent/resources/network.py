"""The uplink of a machine, and what passed the interfaces of a network namespace.

An interface is asked by ioctl and /proc/PID/net, never by /sys: what is mounted there may show another network
namespace than the one that the agent lives in.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from unit_agent.cgroups.files import content

_ALL_ZERO = "0" * 32
_REJECT = 0x0200  # RTF_REJECT, <linux/route.h>


@dataclass(frozen=True, slots=True)
class Passed:
    """Bytes and dropped packets of interfaces since they were made, seen from inside."""

    sent: int = 0
    received: int = 0
    sent_dropped: int = 0
    received_dropped: int = 0


def interfaces(net_dev: bytes) -> dict[str, Passed]:
    """Read /proc/net/dev (proc(5)): bytes packets errs drop … received, then as many of what was sent."""
    found = {}
    for line in net_dev.decode(errors="replace").splitlines()[2:]:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) >= 12:
            found[name.strip()] = Passed(int(words[8]), int(words[0]), int(words[11]), int(words[3]))
    return found


def of_process(pid: int, proc: Path = Path("/proc")) -> Passed | None:
    """Return what passed the network namespace of a process, loopback left out; None when it is gone."""
    text = content(f"{proc}/{pid}/net/dev")
    if not text:
        return None
    each = [passed for name, passed in interfaces(text).items() if name != "lo"]
    return Passed(
        sum(passed.sent for passed in each),
        sum(passed.received for passed in each),
        sum(passed.sent_dropped for passed in each),
        sum(passed.received_dropped for passed in each),
    )


def uplink(address: str, proc: Path = Path("/proc")) -> str:
    """Return the interface of the default route, else the one that carries `address`, else ""."""
    return _default_v4(proc) or _default_v6(proc) or _carrier(address)


def speed(interface: str) -> int:
    """Return what the interface says it can do, bit/s; 0 when it does not say (virtual cards often don't)."""
    try:
        found = psutil.net_if_stats().get(interface)
    except OSError:  # another interface's driver refuses to answer
        return 0
    return max(0, found.speed) * 10**6 if found is not None and found.speed < 2**31 - 1 else 0


def _default_v4(proc: Path) -> str:
    """Return the interface of the IPv4 default route of the lowest metric (/proc/net/route: mask 0)."""
    rows = [line.split() for line in content(f"{proc}/self/net/route").decode(errors="replace").splitlines()[1:]]
    routes = [
        (int(row[6]), row[0])
        for row in rows
        if len(row) > 7 and row[1] == row[7] == "00000000" and not int(row[3], 16) & _REJECT
    ]
    return min(routes)[1] if routes else ""


def _default_v6(proc: Path) -> str:
    """Return the interface of the IPv6 default route of the lowest metric."""
    rows = [line.split() for line in content(f"{proc}/self/net/ipv6_route").decode(errors="replace").splitlines()]
    routes = [
        (int(row[5], 16), row[9])
        for row in rows
        if len(row) > 9
        and row[0] == _ALL_ZERO
        and row[1] == "00"
        and row[9] != "lo"
        and not int(row[8], 16) & _REJECT
    ]
    return min(routes)[1] if routes else ""


def _carrier(address: str) -> str:
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if (
                name != "lo"
                and each.family in (socket.AF_INET, socket.AF_INET6)
                and each.address.split("%")[0] == address
            ):
                return name
    return ""
