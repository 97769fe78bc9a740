"""What this agent makes on a host: links, qdiscs, classes, filters, cgroup marks and firewall rules, as values.

Everything of ours is known by its name or handle: interfaces `unitfleet-out` and `unitfleet-in`, qdiscs `f10:` to
`f13:`, filters of preference 3870 (0xf1e), chains `UNITFLEET-…`. Nothing else is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OUT, IN = "unitfleet-out", "unitfleet-in"
"""The host's two ifbs: all that units send passes the one, what comes to them the other."""

UPLINK_TREE, OUT_TREE, IN_TREE, VETH_TREE = 0xF10, 0xF11, 0xF12, 0xF13
"""Majors of our HTB qdiscs. They differ, so that a packet's class of one device means nothing to the next."""

TREES = (UPLINK_TREE, OUT_TREE, IN_TREE, VETH_TREE)
ROOT_MINOR, DEFAULT_MINOR, RESERVED_MINOR, PULL_MINOR = 1, 2, 3, 4
FIRST_MINOR, LAST_MINOR = 0x100, 0xEFFF
"""Units' classes."""

FILTER_PREFERENCE = 0xF1E
INGRESS_HANDLE = 0xFFFF0000
AT_ROOT = 0xFFFFFFFF
OUT_CHAIN, FORWARD_CHAIN, IN_CHAIN = "UNITFLEET-OUT", "UNITFLEET-FWD", "UNITFLEET-IN"
CHAINS = (FORWARD_CHAIN, IN_CHAIN, OUT_CHAIN)

Key = tuple[str | int, ...]
"""What a thing is called, whatever its values are. Each thing carries its own: a round asks for it many times."""


def handle(major: int, minor: int = 0) -> int:
    """Return the kernel's number of `major:minor`."""
    return major << 16 | minor


def handle_text(number: int) -> str:
    """Write a handle as tc does.

    >>> handle_text(0xF110101)
    'f11:101'
    """
    return f"{number >> 16:x}:{number & 0xFFFF:x}" if number & 0xFFFF else f"{number >> 16:x}:"


@dataclass(frozen=True, slots=True)
class Ifb:
    """An intermediate functional block: a device whose only use is its qdisc."""

    name: str
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("link", self.name))


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A root HTB, or the `ingress` hook, of a device. `default`: minor of what no filter takes, 0: unshaped."""

    device: str
    kind: str
    handle: int
    default: int = 0
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("qdisc", self.device, "ingress" if self.kind == "ingress" else "root"))


@dataclass(frozen=True, slots=True)
class Class:
    """An HTB class. Rates in bytes a second; bursts in µs that they last at it, as the kernel keeps them.

    `priority` 0 is offered spare capacity before 1.
    """

    device: str
    handle: int
    parent: int
    rate: int
    ceil: int
    burst_us: int
    ceil_burst_us: int
    priority: int
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("class", self.device, self.handle))


@dataclass(frozen=True, slots=True)
class Filter:
    """All packets (IPv4, IPv6, ARP …) of `parent` that came by the interface `source` ("": any) go to `target`.

    With `redirect` they take their way through that device first. `number` is the kernel's, once it stands.
    """

    device: str
    parent: int
    target: int
    source: str = ""
    redirect: str = ""
    number: int = field(default=0, compare=False)
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("filter", self.device, self.parent, self.source))


@dataclass(frozen=True, slots=True)
class Mark:
    """The class id of a net_cls group (cgroup v1). `inode` tells a group from the next one of the same path."""

    path: str
    inode: int
    class_id: int
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("mark", self.path))


@dataclass(frozen=True, slots=True)
class Rules:
    """Our chains of the mangle table of IPv4 (`iptables`) or IPv6 (`ip6tables`), as `iptables-save` has them."""

    program: str
    lines: tuple[str, ...]
    key: Key = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("rules", self.program))


Thing = Ifb | Qdisc | Class | Filter | Mark | Rules


@dataclass(frozen=True, slots=True)
class TcSeen:
    """What of ours stands. `foreign`: the root qdiscs that somebody else set, by device."""

    things: tuple[Thing, ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()
