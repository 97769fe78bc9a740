"""What joining told beside the certificate: where etcd is, for an agent that was not told otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from unit_agent.settings import ETCD, AgentConfig
from unitfleet.errors import InvalidConfig
from unitfleet.etcd import credentials
from unitfleet.joinapi import JOINED, JoinAnswer

if TYPE_CHECKING:
    from unitfleet.etcd.endpoint import TlsSource


@dataclass(frozen=True, slots=True)
class WayToEtcd:
    """Where etcd is, and what it is shown."""

    endpoints: tuple[str, ...]
    tls: TlsSource | None


async def way_to_etcd(config: AgentConfig) -> WayToEtcd:
    """Return where etcd is: as the settings say, else as joining told. Raises `InvalidConfig`."""
    kept = await asyncio.to_thread(_read, config.tls_path / JOINED)
    endpoints = kept.etcd if kept.etcd and config.etcd == ETCD else config.etcd
    ca, cert, key = config.etcd_ca, config.etcd_cert, config.etcd_key
    if not ca and kept.etcd_by_identity:
        ca, cert, key = (str(config.tls_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    return WayToEtcd(endpoints, credentials.source(ca, cert, key))


def _read(path: Path) -> JoinAnswer:
    """Return what joining told; nothing where this machine never joined, or its identity was made by hand."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=JoinAnswer)
    except FileNotFoundError:
        return JoinAnswer(certificate="")
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot use {path}: {error}", hint="--etcd says where etcd is, without it") from error
