"""The firewall's part: which packets on the uplink are whose, as `iptables-save` writes it. Decides, does nothing.

What the host itself sends passes the mangle table's OUTPUT, what containers send its FORWARD: so a container's
packets are never taken for the host's own. CLASSIFY ends nothing: the last rule that matches a packet names its
class, and a unit's own rule stands after that of the reserved ports.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unit_agent.shaping.shape import Group
from unit_agent.shaping.things import CHAINS, FORWARD_CHAIN, IN_CHAIN, OUT_CHAIN, Rules

_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")

_PULL = re.compile(r"--comment unitfleet-pull-(\d+)-")
_LIMITS = re.compile(r"--hashlimit-above \S+ --hashlimit-burst \S+")

PROGRAMS = ("iptables", "ip6tables")
MOST_PORTS = 15
"""So many a `multiport` match takes."""

MOST_KB_S = (1 << 22) - 1
"""So far `hashlimit` counts: 34 Gbit/s. What is faster is kept to that."""


def reserved_rule(ports: Sequence[int], class_id: int) -> str:
    """Return the rule for what must get through: etcd, this agent's listener, ssh."""
    listed = ",".join(str(port) for port in ports[:MOST_PORTS])
    match = f"-p tcp -m multiport --ports {listed} -m comment --comment unitfleet-reserved"
    return f"-A {OUT_CHAIN} {match} {_classify(class_id)}"


def group_rule(group: Group, class_id: int) -> str:
    """Return the rule for what the processes of a control group send.

    The inode stands in the comment: a rule holds the group itself, and the next group of the same path is another.
    """
    match = f"--cgroup {class_id}" if group.version == 1 else f"--path {group.path}"
    note = f"-m comment --comment unitfleet-{class_id & 0xFFFF:x}-{group.inode}"
    return f"-A {OUT_CHAIN} -m cgroup {match} {note} {_classify(class_id)}"


def pull_rule(group: Group, class_id: int, rate: int) -> str:
    """Return the rule that drops what comes to the Engine above `rate` bit/s: its registry's TCP slows down.

    The kernel keeps the rate only nearly, so the comment tells which was meant. A table of the same name that
    stands would keep its own rate: each rate has a name of its own (15 letters at most).
    """
    match = f"--cgroup {class_id}" if group.version == 1 else f"--path {group.path}"
    note = f"-m comment --comment unitfleet-pull-{rate}-{group.inode}"
    above = f"-m hashlimit {_hashlimit(rate)} --hashlimit-name ufp-{rate:x}"
    return f"-A {IN_CHAIN} -p tcp -m cgroup {match} {above} {note} -j DROP"


def _hashlimit(rate: int) -> str:
    """Write a rate as bytes a second, and a second of it as the burst, the least that is allowed.

    The kernel counts in shares of 2³² to 16 bytes: the higher a rate, the further the next that it can keep, and a
    burst below a second of that one is refused.
    """
    size = min(max(rate // 8 // 1024, 64), MOST_KB_S)
    share = 0xFFFFFFFF // ((size * 1024 >> 4) + 1)
    kept = (0xFFFFFFFF // share) << 4
    return f"--hashlimit-above {size}kb/s --hashlimit-burst {max(size, -(-kept // 1024)) + 64}kb"


def forwarded_rule(address: str, class_id: int) -> str:
    """Return the rule for what a container sends out of this host, known by its hardware address."""
    note = f"-m comment --comment unitfleet-{class_id & 0xFFFF:x}"
    return f"-A {FORWARD_CHAIN} -m mac --mac-source {address} {note} {_classify(class_id)}"


def rule_lines(
    uplink: str, own: Sequence[str], forwarded: Sequence[str], inbound: Sequence[str] = ()
) -> tuple[Rules, ...]:
    """Return all rules, the same for IPv4 and IPv6: the ways into our chains and what stands in them."""
    ways = {FORWARD_CHAIN: f"FORWARD -o {uplink}", OUT_CHAIN: f"OUTPUT -o {uplink}"} if own or forwarded else {}
    if inbound:
        ways[IN_CHAIN] = f"INPUT -i {uplink}"
    lines = [f":{chain} - [0:0]" for chain in ways]
    lines += [f"-A {way} -j {chain}" for chain, way in ways.items()]
    ordered = tuple(sorted([*lines, *forwarded, *own, *inbound], key=_place))
    return tuple(Rules(program, ordered) for program in PROGRAMS) if ordered else ()


def script(wanted: Sequence[str], standing: Sequence[str]) -> str:
    """Return what makes `iptables-restore --noflush` turn our standing lines into the wanted ones, in one step."""
    text = ["*mangle"]
    jumps = [line for line in standing if _is_jump(line)]
    kept = [line for line in wanted if _is_jump(line) and jumps.count(line) == 1]
    chains = [line for line in wanted if line.startswith(":")]
    gone = [line for line in standing if line.startswith(":") and line not in chains]
    text += chains  # a chain that is named is emptied first
    text += gone
    text += [line.replace("-A ", "-D ", 1) for line in jumps if line not in kept]
    text += [line for line in wanted if not line.startswith(":") and line not in kept]
    text += [f"-X {line[1:].split()[0]}" for line in gone]
    return "\n".join([*text, "COMMIT", ""])


def ours(saved: str) -> tuple[str, ...]:
    """Return our lines of what `iptables-save` wrote, in one order for all its versions, without counters."""
    found = []
    for line in saved.splitlines():
        words = line.split()
        if words and words[0] in {f":{chain}" for chain in CHAINS}:
            found.append(f"{words[0]} - [0:0]")
        elif words and words[0] == "-A" and not set(CHAINS).isdisjoint(words):
            found.append(_as_we_write(line))
    return tuple(sorted(found, key=_place))


def _as_we_write(line: str) -> str:
    """Turn a saved rule into our own way of writing it: small letters in addresses, rates as they were meant."""
    meant = _PULL.search(line)
    if meant is not None:
        line = _LIMITS.sub(_hashlimit(int(meant[1])), line)
    return _MAC.sub(lambda match: match[0].lower(), line)


def _place(line: str) -> tuple[int, str]:
    """Return where a line comes: chains, the ways into them, then each chain's rules in their own order."""
    return (0 if line.startswith(":") else 1 if _is_jump(line) else 2, line.split()[1] if line[0] == "-" else line)


def _is_jump(line: str) -> bool:
    return line.startswith("-A ") and line.split()[1] not in CHAINS


def _classify(class_id: int) -> str:
    return f"-j CLASSIFY --set-class {class_id >> 16:04x}:{class_id & 0xFFFF:04x}"
