"""What the scheduler reads of every host again and again, in columns: together in memory, not spread over objects.

A host's number is its place in the order of ids, so that numbers compare as ids do.
"""

from __future__ import annotations

from array import array

from unit_master.scene import Host, Scene, millis


class Columns:
    """Loads, capacities and images of a scene's hosts, kept up with what the scene touched."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._touched, self._altered = len(scene.touched), len(scene.altered)
        self.machines = sorted(scene.hosts)
        self.number = {machine: number for number, machine in enumerate(self.machines)}
        self.hosts = [scene.hosts[machine] for machine in self.machines]
        zeros = [0] * len(self.hosts)
        self.cpu, self.memory = [*zeros], [*zeros]  # capacity; both 0 where one is not known
        self.cpu_millis, self.memory_reserved = array("q", zeros), array("q", zeros)
        self.cpu_load, self.memory_load = array("q", zeros), array("q", zeros)
        self.units = [*zeros]
        self.images = [host.images for host in self.hosts]
        for host in self.hosts:
            self._measure(host)
            self._count(host)

    def keep_up(self) -> None:
        """Read anew what the scene has touched since the last time."""
        touched, altered, hosts = self._scene.touched, self._scene.altered, self._scene.hosts
        if self._altered < len(altered):
            for machine in dict.fromkeys(altered[self._altered :]):
                self._measure(hosts[machine])
            self._altered = len(altered)
        if self._touched < len(touched):
            for machine in touched[self._touched :]:
                self._count(hosts[machine])
            self._touched = len(touched)

    def _measure(self, host: Host) -> None:
        number, has = self.number[host.id], host.capacity
        cpu = millis(has.cpu) if has.cpu else 0
        self.cpu[number], self.memory[number] = (cpu, has.memory) if cpu and has.memory else (0, 0)
        self.images[number] = host.images

    def _count(self, host: Host) -> None:
        number = self.number[host.id]
        self.cpu_millis[number], self.memory_reserved[number] = host.cpu_millis, host.memory_reserved
        self.cpu_load[number], self.memory_load[number] = host.cpu_load, host.memory_load
        self.units[number] = len(host.units)
