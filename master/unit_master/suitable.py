"""The hosts that units of a kind may run on, whatever is placed there: what rules say of hosts themselves."""

from __future__ import annotations

from unit_master.rules import RULES
from unit_master.scene import Host, Scene, millis
from unitfleet.model import Requirements

_OF_PLACES = frozenset(("peers", "conflicts", "replaces", "ports", "resources"))
"""Rules that look at what is placed."""

_OF_HOSTS = tuple(rule for name, rule in RULES if name not in _OF_PLACES)

Row = tuple[Host, int, int, int, int, int]
"""A host with what it has of each resource: thousandths of a core, bytes of memory and disk, bit/s out and in."""


class Suitable:
    """Kept up with hosts that were altered; for units that are counted nowhere."""

    def __init__(self, like: Requirements, scene: Scene) -> None:
        self._like = like
        self._scene = scene
        self._seen = len(scene.altered)
        self.rows: dict[str, Row] = {}
        self.unmeasured: set[str] = set()  # of these, those that do not tell cpu or memory
        for host in scene.hosts.values():
            self._judge(host)

    def keep_up(self) -> None:
        """Ask the rules again about the hosts that were altered since the last time."""
        altered = self._scene.altered
        if self._seen == len(altered):
            return
        for machine in dict.fromkeys(altered[self._seen :]):
            self._judge(self._scene.hosts[machine])
        self._seen = len(altered)

    def _judge(self, host: Host) -> None:
        self.rows.pop(host.id, None)
        self.unmeasured.discard(host.id)
        if all(rule(self._like, host, self._scene) is None for rule in _OF_HOSTS):
            has = host.capacity
            cpu = millis(has.cpu) if has.cpu else 0
            if not (cpu and has.memory):
                self.unmeasured.add(host.id)
            self.rows[host.id] = host, cpu, has.memory, has.disk, has.egress, has.ingress
