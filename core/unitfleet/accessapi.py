"""What the API takes and answers about access: tokens, secrets, and the log of who changed what.

POST   /v1/tokens                      TokenOrder → 201 TokenMade, which alone holds the token
GET    /v1/tokens                      items: TokenView
DELETE /v1/tokens/T                    by name or id → Revision
POST   /v1/secrets                     SecretOrder → 201 SecretSet; the value is in no answer
GET    /v1/secrets                     items: SecretView
DELETE /v1/secrets/NAME                Revision
GET    /v1/audit?since=&caller=&unit=GLOB&limit=   AuditTrail: who changed what, from all masters
"""

from __future__ import annotations

import msgspec

from unitfleet.api import API
from unitfleet.model import Role


class TokenOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A token that is wanted: it opens the API to `role` for `ttl_s` seconds, None for ever."""

    name: str
    role: Role
    ttl_s: float | None = None


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its secret. `expires_at` 0: never."""

    id: str
    name: str
    role: Role
    created_by: str
    created_at: float
    expires_at: float
    expired: bool


class TokenMade(msgspec.Struct, frozen=True, kw_only=True):
    """A new token: `token` is the secret itself, told here and never again."""

    rev: int
    token: str
    view: TokenView


class SecretOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret's value that is to be set; in JSON the value is base64."""

    name: str
    value: bytes

    def __repr__(self) -> str:
        """Leave the value out: whatever shows this must not show it."""
        return f"SecretOrder(name={self.name!r})"


class SecretSet(msgspec.Struct, frozen=True, kw_only=True):
    """A secret was set; not `changed`: it had this value already."""

    rev: int
    name: str
    version: int
    changed: bool


class SecretOnMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that was given a secret, which version of it; `why`: it could not be."""

    machine: str
    machine_name: str
    version: int
    why: str = ""


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A secret without its value. `units` name it."""

    name: str
    version: int
    set_by: str
    set_at: float
    units: tuple[str, ...]
    machines: tuple[SecretOnMachine, ...]


class AuditLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change that somebody asked for: who, what, and what came of it. Without bodies and secrets.

    `status` 0: it was begun and its outcome is not known (the master ended meanwhile). `objects` are the first
    names of `count`; `refused` of them were refused one by one. `unheard` counts callers without a known token
    that asked for changes since the line before and have none of their own.
    """

    at: float  # when it was asked
    id: str
    master: str
    caller: str
    role: str
    source: str  # the peer's address, or "unix"
    method: str
    route: str
    action: str  # in words: stop adserver@1.service
    token: str = ""  # its id
    objects: tuple[str, ...] = ()
    count: int = 0
    status: int = 0  # HTTP's
    code: str = ""  # of the error
    refused: int = 0
    rev: int = 0
    unheard: int = 0


class AuditTrail(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/audit`, oldest first; `unasked` are the masters that could not be asked, each with why."""

    api: str = API
    rev: int
    items: tuple[AuditLine, ...]
    unasked: tuple[str, ...] = ()
