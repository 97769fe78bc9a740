"""`podman volume create` and `podman network create` for `.volume` and `.network` files.

Source: ConvertVolume and ConvertNetwork of pkg/systemd/quadlet/quadlet.go.
"""

from __future__ import annotations

from unitfleet.podman.command import Command, Needs
from unitfleet.podman.files import Source, made
from unitfleet.podman.text import Refused

_NETWORK_FLAGS = {"DisableDNS": "--disable-dns", "Internal": "--internal", "IPv6": "--ipv6"}
_NETWORK_LAST = {"Driver": "--driver", "IPAMDriver": "--ipam-driver", "InterfaceName": "--interface-name"}


def create_network(source: Source) -> list[str]:
    """Return the command line; raises `Refused`."""
    command = Command(source, "network", "create", "--ignore")
    for key, option in _NETWORK_FLAGS.items():
        command.flag(key, option)
    command.options(_NETWORK_LAST)
    command.each("DNS", "--dns")
    _subnets(command)
    command.pairs("Options", "--opt")
    command.pairs("Label", "--label")
    command.podman_args()
    command.add(made(source.filename, source.text).resource)
    return command.words


def _subnets(command: Command) -> None:
    subnets, gateways, ranges = (command.text.all("Network", key) for key in ("Subnet", "Gateway", "IPRange"))
    if not subnets and (gateways or ranges):
        raise Refused("cannot set gateway or range without subnet")
    if len(gateways) > len(subnets):
        raise Refused("cannot set more gateways than subnets")
    if len(ranges) > len(subnets):
        raise Refused("cannot set more ranges than subnets")
    for index, subnet in enumerate(subnets):
        command.add("--subnet", subnet)
        for option, values in (("--gateway", gateways), ("--ip-range", ranges)):
            if index < len(values):
                command.add(option, values[index])


def create_volume(source: Source, needs: Needs, mounts: list[str]) -> list[str]:
    """Return the command line; raises `Refused`. `mounts` gets the path that a volume of type bind stands for."""
    text = source.text
    command = Command(source, "volume", "create", "--ignore")
    driver = text.value("Volume", "Driver")
    if driver is not None:
        command.add("--driver", driver)
    if driver == "image":
        image = text.value("Volume", "Image")
        if image is None:
            raise Refused("the key Image is mandatory when using the image driver")
        command.add("--opt", f"image={command.image(image, needs)}")
    else:
        _mount_options(command, mounts)
    command.options({"UID": "--uid", "GID": "--gid"})
    command.pairs("Label", "--label")
    command.podman_args()
    command.add(made(source.filename, text).resource)
    return command.words


def _mount_options(command: Command, mounts: list[str]) -> None:
    text = command.text
    options = []
    for key, word in (("User", "uid"), ("Group", "gid")):
        if text.last("Volume", key) is not None:
            options.append(f"{word}={text.number('Volume', key)}")
    copy = text.boolean("Volume", "Copy")
    if copy is not None:
        command.add("--opt", "copy" if copy else "nocopy")
    device = text.text("Volume", "Device")
    if device:
        command.add("--opt", f"device={device}")
    for key in ("Type", "Options"):
        if text.text("Volume", key) and not device:
            raise Refused(f"key {key} can't be used without Device")
    if kind := text.text("Volume", "Type"):
        command.add("--opt", f"type={kind}")
        if kind == "bind":
            mounts.append(device)
    if more := text.text("Volume", "Options"):
        options.append(more)
    if options:
        command.add("--opt", "o=" + ",".join(options))
