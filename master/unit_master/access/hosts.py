"""Which names a master answers to by TCP.

A page in a browser can let a name of its own lead to this master (DNS rebinding), and the browser then takes the
answers for that page's. Such a request carries the page's name as its Host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


def host_fault(header: str, names: Collection[str], here: str) -> str | None:
    """Return why a request with this Host header is not meant for this master, or None.

    `here` is the address that the request came to. A port is not looked at: others may forward to it.
    """
    host = _host(header)
    if not host:
        return "the request names no host"
    address = _address(host)
    if address is None:
        known = host == "localhost" or host in {name.lower() for name in names}
    else:
        known = address.is_loopback or address == _address(here) or str(address) in names
    return None if known else f"it is not known as {host[:80]!a}"


def _host(header: str) -> str:
    """Return the host of `host`, `host:port` or `[address]:port`."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].removesuffix(".").lower()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
