"""Asks a master to drain this machine, as this machine: by its certificate, or with the cluster's key."""

from __future__ import annotations

import aiohttp
import msgspec

from unit_agent.agent import Agent
from unit_agent.masters import Archives
from unitfleet.api import AGENT_HEADER, ErrorBody
from unitfleet.errors import Refused
from unitfleet.tls import Contexts

ANSWER_S = 10.0
CONNECT_S = 3.0
MOST_TOLD = 4096


class Drain:
    """Gives one order, about this machine."""

    def __init__(self, agent: Agent, masters: Archives, cluster_key: str, tls: Contexts | None) -> None:
        self._agent = agent
        self._masters = masters
        self._cluster_key = cluster_key
        self._tls = tls

    async def ask(self) -> None:
        """Return once a master took the order; raises `Refused` with what each said."""
        if self._tls is None and not self._cluster_key:
            raise Refused(
                "cannot have this machine drained: it has nothing to show to masters",
                hint="--cluster-key-file, or an identity (docs/certificates.md)",
            )
        reasons = []
        for master in await self._masters.find_all():
            if not (why := await self._refusal(master)):
                return
            reasons.append(f"{master}: {why}")
        raise Refused(f"cannot have this machine drained: {'; '.join(reasons) or 'no master is known'}")

    async def _refusal(self, master: str) -> str:
        """Ask one master; return why it did not take the order, "" when it did."""
        machine = self._agent.facts.id
        headers = {}
        if self._tls is None:
            headers["Authorization"] = f"Bearer {self._cluster_key}"
            headers[AGENT_HEADER] = f"{machine}/{self._agent.presence.nonce}"
        connector = aiohttp.TCPConnector(ssl=self._tls.client) if self._tls else None
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(f"{master}/v1/machines/{machine}/drain", headers=headers) as answer,
            ):
                if answer.status < 300:
                    return ""
                return _told(await answer.content.read(MOST_TOLD)) or f"it answered {answer.status}"
        except (aiohttp.ClientError, OSError) as error:
            return str(error) or "no answer in time"


def _told(raw: bytes) -> str:
    """Return what the master said, "" when it is not in our words."""
    try:
        return msgspec.json.decode(raw, type=ErrorBody).message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
