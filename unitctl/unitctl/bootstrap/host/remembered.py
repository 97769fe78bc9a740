"""What EC2 said of this instance at a former boot, for a boot at which it says nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

PATH = "/var/lib/unitfleet/ec2.json"

_NO_CLOUD = "iid-datasource-none"  # what cloud-init calls an instance of which no cloud tells


@dataclass(frozen=True, slots=True)
class Remembered:
    """An instance's id and metadata; empty for what was never said."""

    instance_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def write(self) -> str:
        """Return it as it is kept."""
        return json.dumps({"instance-id": self.instance_id, "metadata": dict(self.metadata)}, indent=1) + "\n"


def read(text: str, instance_id: str) -> Remembered:
    """Return what was kept; nothing when it is of another instance than `instance_id`, "" for one not known.

    A host that was made of an image of this one has the file, too.
    """
    try:
        kept = json.loads(text)
        found = Remembered(
            str(kept["instance-id"]), {str(key): str(kept["metadata"][key]) for key in kept["metadata"]}
        )
    except (ValueError, KeyError, TypeError):
        return Remembered()
    return found if instance_id in ("", found.instance_id) else Remembered()


def told_by_cloud_init(text: str) -> str:
    """Return the instance's id as cloud-init has it, "" when no cloud told it."""
    return "" if text.strip() == _NO_CLOUD else text.strip()
