"""The machine's key pair: what is sealed to its public key, this machine alone can open.

The private key is made at the first start and never leaves. The public one is kept beside it, so that an agent
without secrets need not load what computes it.
"""

from __future__ import annotations

import logging

from unit_agent.local_copy import LocalCopy, read_record
from unitfleet import codec
from unitfleet.model import Record
from unitfleet.sealing import new_private_key, public_key

logger = logging.getLogger(__name__)

KEY = "secrets-key.json"


class MachineKey(Record, frozen=True, kw_only=True):
    """What is kept on disk, for its owner alone. One that was copied to another machine does not count."""

    machine: str
    private: str
    public: str

    def __repr__(self) -> str:
        """Leave the private key out."""
        return f"MachineKey(machine={self.machine!r}, public={self.public!r})"


async def machine_key(local: LocalCopy, machine: str) -> MachineKey:
    """Return the machine's key pair, made if there is none. What was sealed to a lost one, is sealed anew.

    Raises OSError.
    """
    kept = await read_record(local, KEY, MachineKey)
    if kept is not None and kept.machine == machine:
        return kept
    private = new_private_key()
    made = MachineKey(machine=machine, private=private, public=public_key(private))
    await local.write(KEY, codec.encode(made))
    logger.info("made the key pair of this machine, for secrets")
    return made
