"""What EC2's instance-metadata service says of this instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from unitctl.bootstrap.settings import metadata_pair
from unitfleet.imds import ADDRESS, PATIENCE_S, Absent, MetadataService, Silent
from unitfleet.problems import BadValue


@dataclass(frozen=True, slots=True)
class Instance:
    """What the service says. `absent`: why it left a question open; `skipped`: tags that can be no metadata."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    instance_id: str = ""
    private: str = ""
    public: str = ""
    absent: str = ""
    skipped: tuple[str, ...] = ()


def ask(address: str = ADDRESS, patience_s: float = PATIENCE_S) -> Instance:
    """Ask for what is known of this instance; a service that is not there is told, no failure."""
    service, unanswered = MetadataService(address, patience_s), list[str]()

    def get(path: str) -> str:
        try:
            return service.find(path) or ""
        except Absent:
            raise
        except Silent as error:
            unanswered.append(str(error))
            return ""

    try:
        zone = get("placement/availability-zone")
        facts = {
            "instance-id": get("instance-id"),
            "instance-type": get("instance-type"),
            "zone": zone,
            "region": get("placement/region") or zone.rstrip("abcdefghijklmnopqrstuvwxyz"),
        }
        tags, skipped = _tags(get)
        private, public = get("local-ipv4"), get("public-ipv4")
    except Absent as error:
        return Instance(absent=str(error))
    known = {key: value for key, value in facts.items() if value}
    absent = next(iter(unanswered), "")
    return Instance({**tags, **known}, facts["instance-id"], private, public, absent, skipped)


def _tags(get: Callable[[str], str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The instance's tags, where its metadata options serve them."""
    found: dict[str, str] = {}
    skipped = []
    for key in get("tags/instance").splitlines():
        value = get(f"tags/instance/{quote(key.strip())}")
        try:
            name, text = metadata_pair(f"{key.strip()}={value}")
        except BadValue:
            skipped.append(key.strip())
            continue
        found[name] = text
    return found, tuple(skipped)
