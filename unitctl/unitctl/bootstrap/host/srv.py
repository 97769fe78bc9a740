"""Members of etcd by DNS: SRV records and the addresses of what they name."""

from __future__ import annotations

from typing import Any

from unitctl.bootstrap.libraries import load
from unitctl.failures import Failure

PATIENCE_S = 30.0
"""The network of a host that boots may take a while."""


def find(name: str, resolver: Any = None, patience_s: float = PATIENCE_S) -> tuple[str, ...]:
    """Return the members' addresses, in an order that every host gets; raises `Failure`.

    The order matters: each host works out the same list from it.
    """
    dns = load("dns.resolver", "bootstrap", f"look up {name}")
    exception = load("dns.exception", "bootstrap", f"look up {name}")
    found: set[str] = set()
    try:
        asked = resolver or dns.Resolver()
        for record in asked.resolve(name, "SRV", lifetime=patience_s):
            host = str(record.target)
            addresses = {
                str(answer) for kind in ("A", "AAAA") for answer in _answers(asked, dns, host, kind, patience_s)
            }
            if not addresses:
                raise Failure(f"cannot look up {name}: {host} has no address")
            found.add(min(addresses, key=_v4_first))
    except exception.DNSException as error:
        raise Failure(
            f"cannot look up {name}: {str(error).rstrip('.')}",
            hint="SRV records, as etcd's own discovery has them",
        ) from error
    return tuple(sorted(found, key=_v4_first))


def _answers(resolver: Any, dns: Any, host: str, kind: str, patience_s: float) -> Any:
    try:
        return resolver.resolve(host, kind, lifetime=patience_s)
    except (dns.NoAnswer, dns.NXDOMAIN):
        return ()


def _v4_first(address: str) -> tuple[bool, str]:
    return ":" in address, address
