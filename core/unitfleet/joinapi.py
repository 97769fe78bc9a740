"""What the API takes and answers about identities: join tokens, joining, renewing (docs/certificates.md).

POST   /v1/join-tokens                 JoinTokenWish → 201 JoinTokenMade: the one time that the secret is told
GET    /v1/join-tokens                 items: JoinTokenView
DELETE /v1/join-tokens/ID              202 Revision
GET    /v1/ca                          the cluster's authority as PEM; anybody may ask
POST   /v1/join                        JoinRequest → JoinAnswer; anybody may ask, the token decides
POST   /v1/renew                       RenewRequest → RenewAnswer; by the present certificate
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

JOINED = "joined.json"
"""Beside a certificate: the `JoinAnswer` that it came with."""


class Role(StrEnum):
    """As what an identity speaks: the organisation (O) of its certificate."""

    MASTER = "master"
    AGENT = "agent"
    ADMIN = "admin"


Text = Annotated[str, msgspec.Meta(max_length=256)]
Pem = Annotated[str, msgspec.Meta(max_length=8192)]


class JoinTokenWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token for `uses` hosts, for so long; machines that join with it get the metadata."""

    ttl_s: Annotated[float, msgspec.Meta(ge=1, le=30 * 86400)] = 3600.0
    uses: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    role: Text = "agent"
    metadata: dict[str, Text] = {}


class JoinTokenMade(msgspec.Struct, frozen=True, kw_only=True):
    """The word to hand to a host. Nothing keeps it: it can't be asked for again."""

    token: str
    id: str
    expires_at: float


class JoinTokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret; `joined` are the ids of who joined by it."""

    id: str
    role: str
    uses_left: int
    expires_at: float
    metadata: dict[str, str] = {}
    joined: tuple[str, ...] = ()


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host that wants in: token `id` and its secret, who it is (a machine's id, a master's name), its request.

    `hosts` are the names and addresses of a master; of a machine they are not heeded.
    """

    id: Text
    secret: Text
    role: Text
    name: Text
    csr: Pem
    hosts: tuple[Text, ...] = ()


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate, and where the store is. `etcd_by_identity`: etcd asks for certificates of this cluster."""

    certificate: str
    etcd: tuple[str, ...] = ()
    etcd_by_identity: bool = False


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for the same name as the certificate that the connection shows."""

    csr: Pem


class RenewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The new certificate."""

    certificate: str
