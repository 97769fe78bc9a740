"""Units of CoreOS hosts on other hosts: what they depend on is called otherwise there, or is not there."""

from __future__ import annotations

import re

_LINE = re.compile(r"^([ \t]*)(Requires|Requisite|BindsTo|Wants|After|Before|PartOf|Conflicts)([ \t]*=)(.*)$")
_STRONG = ("Requires", "Requisite", "BindsTo")
_RENAMED = {
    "fleet.service": "unit-agent.service",
    "fleet.socket": "unit-agent.service",
    "etcd2.service": "etcd.service",
    "etcd-member.service": "etcd.service",
    "etcd.service": "etcd.service",
}
_GONE = re.compile(
    r"(flanneld|early-docker|locksmithd|update-engine|user-configdrive|user-cloudinit.*|system-cloudinit@.*)"
    r"\.(service|socket|target)|system-config\.target|user-config\.target"
)
_CALLS = (
    (re.compile(r"\bfleetctl\b"), "it calls fleetctl: here that is unitctl, with the same verbs"),
    (re.compile(r"\betcdctl\b"), "it calls etcdctl: set, mk and ls were of etcd's old API, now it is put and get"),
)


def mend(text: str) -> tuple[str, list[str]]:
    """Return a unit whose dependencies exist here, and what was changed.

    Not every host has etcd, and systemd starts nothing that requires what is not there: a requirement of such a
    service becomes a wish.
    """
    changes: list[str] = []
    lines = []
    for line in text.split("\n"):
        match = _LINE.match(line)
        lines.append(line if match is None else _dependencies(line, match, changes))
    return "\n".join(line for line in lines if line is not None), ["; ".join(changes)] if changes else []


def remarks(text: str) -> list[str]:
    """What a text calls that is called otherwise here."""
    return [what for pattern, what in _CALLS if pattern.search(text)]


def _dependencies(line: str, match: re.Match[str], changes: list[str]) -> str | None:
    indent, key, equals, value = match.groups()
    words = value.split()
    kept = [word for word in words if word not in _RENAMED and not _GONE.fullmatch(word)]
    renamed = [_RENAMED[word] for word in words if word in _RENAMED]
    if kept == words:
        return line
    written = []
    if kept:
        written.append(f"{indent}{key}{equals}{' '.join(kept)}")
    if renamed:
        weaker = "Wants" if key in _STRONG else key
        written.append(f"{indent}{weaker}{equals}{' '.join(dict.fromkeys(renamed))}")
    now = "\n".join(written)
    if now != line:
        changes.append(f"{line.strip()} became {now.strip().replace(chr(10), ' and ') or 'nothing'}")
    return now if written else None
