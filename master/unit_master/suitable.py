"""The hosts that units of a kind may run on, whatever is placed there: what rules say of hosts themselves."""

from __future__ import annotations

from unit_master.columns import Columns
from unit_master.rules import RULES
from unit_master.scene import Host, Scene
from unitfleet.model import Requirements

_OF_PLACES = frozenset(("peers", "conflicts", "replaces", "ports", "resources"))
"""Rules that look at what is placed."""

_OF_HOSTS = tuple(rule for name, rule in RULES if name not in _OF_PLACES)


class Suitable:
    """Kept up with hosts that were altered; for units that are counted nowhere."""

    def __init__(self, like: Requirements, scene: Scene, columns: Columns) -> None:
        self._like = like
        self._scene = scene
        self._columns = columns
        self._seen = len(scene.altered)
        self.takes = bytearray(len(columns.hosts))  # by number: 1 for a host that does
        self.unmeasured = 0  # of these, how many do not tell cpu or memory
        for host in columns.hosts:
            self._judge(host)

    def keep_up(self) -> None:
        """Ask the rules again about the hosts that were altered since the last time."""
        altered = self._scene.altered
        if self._seen == len(altered):
            return
        for machine in dict.fromkeys(altered[self._seen :]):
            self._judge(self._scene.hosts[machine])
        self._seen = len(altered)
        self._count()

    def _judge(self, host: Host) -> None:
        takes = all(rule(self._like, host, self._scene) is None for rule in _OF_HOSTS)
        self.takes[self._columns.number[host.id]] = takes
        if takes and not self._columns.cpu[self._columns.number[host.id]]:
            self.unmeasured += 1

    def _count(self) -> None:
        self.unmeasured = sum(takes and not cpu for takes, cpu in zip(self.takes, self._columns.cpu, strict=True))
