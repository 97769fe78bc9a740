"""Makes join tokens, lets hosts in by them, renews certificates. A transaction decides: one use is one use."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from unit_master.cache import Cache
from unit_master.identities import AGENT, MACHINE_ID, Attempts, Rejected, in_the_way, judge
from unit_master.view import ClusterView
from unitfleet import certificates, codec, jointoken, keys, names
from unitfleet.certificates import AGENT_DAYS, SERVER_DAYS, Authority, Who
from unitfleet.errors import NotFound, Refused, UnitfleetError
from unitfleet.joinapi import (
    JoinAnswer,
    JoinRequest,
    JoinTokenMade,
    JoinTokenView,
    JoinTokenWish,
    RenewAnswer,
    RenewRequest,
    Role,
)
from unitfleet.jointoken import JoinToken
from unitfleet.model import IdentityRecord, JoinRecord, MachineSpec
from unitfleet.store import Compare, Op, Put, Store, absent, unchanged

logger = logging.getLogger(__name__)

TRIES = 8
JOINABLE = (Role.AGENT, Role.MASTER)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NotNow(UnitfleetError):
    """This master can't do it, or not at present: another one may, or the same one later."""


class TooMany(NotNow):
    """Too many attempts of one address failed: no more are looked at for a while."""


class InTheWay(NotNow):
    """What stands against it goes by itself, or its owner ends it: the same may be asked again."""


class TokenRefused(UnitfleetError):
    """The one answer to every token that is not good."""

    def __init__(self) -> None:
        super().__init__(
            "cannot join: the token is not valid (used, expired or of another cluster)",
            hint="an admin makes a new one: unitctl machines join-token",
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """An attempt that was refused, with the true reason: for the log and the audit, never for the caller."""

    token: str
    name: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class Signing:
    """What a master signs with and tells: `authority` None where its key is not."""

    ca: bytes
    authority: Authority | None
    etcd: tuple[str, ...] = ()
    etcd_by_identity: bool = False


class Joins:
    """The writer of `join/` and `identities/`. `admit` gets role and name of who is let in, first."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        signing: Signing,
        *,
        now: Callable[[], float],
        refused: Callable[[Refusal], None] = lambda refusal: None,
        admit: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._now = now
        self._refused = refused
        self._admit = admit
        self._attempts = Attempts()
        self.signing = signing

    async def make_token(self, wish: JoinTokenWish, own: tuple[str, ...]) -> JoinTokenMade:
        """Make a token; `own` is where this master answers, for a cluster that knows no other that signs."""
        if wish.role not in JOINABLE:
            raise Refused(f"cannot make a token for {wish.role[:20]!a}", hint=f"--role {' or '.join(JOINABLE)}")
        token = JoinToken(
            endpoints=signing_masters(self._cache.view) or own,
            ca=certificates.digest(self.signing.ca),
            id=secrets.token_hex(jointoken.ID_BYTES),
            secret=secrets.token_hex(jointoken.SECRET_BYTES),
        )
        record = JoinRecord(
            id=token.id,
            secret=jointoken.hashed(token.secret),
            role=wish.role,
            uses_left=wish.uses,
            expires_at=self._now() + wish.ttl_s,
            metadata=wish.metadata,
        )
        lease = await self._store.grant(wish.ttl_s)
        key = keys.join_token(token.id)
        result = await self._store.txn([absent(key)], [Put(key, codec.encode(record), lease.id)])
        if not result.succeeded:
            raise NotNow("cannot make a token: its id is taken", hint="try again")
        logger.info("made join token %s: %d %s", token.id, wish.uses, f"{wish.role}{'s' * (wish.uses > 1)}")
        return JoinTokenMade(token=jointoken.write(token), id=token.id, expires_at=record.expires_at)

    def tokens(self) -> list[JoinTokenView]:
        """Return the tokens that are not over, the next to end first."""
        records = (entry.value for entry in self._cache.view.join_tokens.values())
        return [
            JoinTokenView(
                id=record.id,
                role=record.role,
                uses_left=record.uses_left,
                expires_at=record.expires_at,
                metadata=record.metadata,
                joined=tuple(record.joined),
            )
            for record in sorted(records, key=lambda record: (record.expires_at, record.id))
        ]

    async def remove_token(self, token: str) -> int:
        """Make a token good for nobody; raises `NotFound`."""
        key = keys.join_token(token)
        if token in self._cache.view.join_tokens or await self._store.get(key) is not None:
            revision = await self._store.delete(key)
            logger.info("removed join token %s", token)
            return revision
        raise NotFound(
            f"cannot remove join token {token[:40]}: there is none of this id", hint="unitctl machines join-tokens"
        )

    async def join(self, request: JoinRequest, address: str) -> JoinAnswer:
        """Let a host in. Raises `TokenRefused`, `NotNow`, and `Refused` for what a new token would not mend."""
        if self._attempts.too_many(address, self._now()):
            raise TooMany("cannot join: too many attempts failed", hint="wait a minute")
        authority = self._authority()
        key = certificates.csr_key(request.csr.encode())
        token_key = keys.join_token(request.id)
        for _ in range(TRIES):
            held = await self._store.get(token_key) if _is_word(request.id) else None
            record = codec.decode(held.value, JoinRecord, token_key) if held else None
            verdict = judge(record, request.secret, request.role, request.name, key, self._now())
            if isinstance(verdict, Rejected):
                self._reject(request, address, verdict.why)
                raise TokenRefused
            who = _who(request)
            compares, ops = await self._identity(request, key, who)
            assert held is not None and record is not None
            compares.append(unchanged(token_key, held.mod_revision))
            if verdict.record is not None:
                ops.append(Put(token_key, codec.encode(verdict.record), held.lease))
            if who.role is Role.AGENT and record.metadata:
                await self._label(who.name, record.metadata, compares, ops)
            if (await self._store.txn(compares, ops)).succeeded:
                again = " again" if verdict.record is None else ""
                logger.info("let %s %s in%s by token %s, from %s", who.role, who.name, again, request.id, address)
                await self._admitted(who)
                signed = certificates.sign_csr(authority, request.csr.encode(), who, _days(who.role), self._now())
                return JoinAnswer(
                    certificate=signed.decode(),
                    etcd=self.signing.etcd,
                    etcd_by_identity=self.signing.etcd_by_identity,
                )
        raise NotNow("cannot join: others join by the same token all the time", hint="try again")

    async def renew(self, request: RenewRequest, role: str, name: str, hosts: tuple[str, ...]) -> RenewAnswer:
        """Return a new certificate for who shows a present one; `hosts` are the names in that."""
        authority = self._authority()
        who = Who(name, Role(role), hosts)
        key = certificates.csr_key(request.csr.encode())
        identity_key = keys.identity(role, name)
        for _ in range(TRIES):
            held = await self._store.get(identity_key)
            if held is not None and codec.decode(held.value, IdentityRecord, identity_key).denied:
                raise Refused(f"cannot renew the certificate of {name}: it was shut out")
            guard = unchanged(identity_key, held.mod_revision if held else 0)
            if (await self._store.txn([guard], [self._record(who, key)])).succeeded:
                logger.info("renewed the certificate of %s %s", role, name)
                await self._admitted(who)
                signed = certificates.sign_csr(authority, request.csr.encode(), who, _days(who.role), self._now())
                return RenewAnswer(certificate=signed.decode())
        raise NotNow(f"cannot renew the certificate of {name}: it changes all the time", hint="try again")

    def _authority(self) -> Authority:
        if self.signing.authority is None:
            others = ", ".join(signing_masters(self._cache.view)) or "the one of `unitctl cluster init`"
            raise NotNow("cannot sign here: this master has no authority's key", hint=f"ask {others}")
        return self.signing.authority

    async def _identity(self, request: JoinRequest, key: str, who: Who) -> tuple[list[Compare], list[Op]]:
        """Return what writes the identity down, and what must be so; raises where another has the name."""
        identity_key = keys.identity(who.role, who.name)
        held = await self._store.get(identity_key)
        known = codec.decode(held.value, IdentityRecord, identity_key) if held else None
        there = keys.presence(who.name) if who.role is Role.AGENT else keys.master(who.name)
        present = await self._store.get(there) is not None
        if why := in_the_way(known, key, present=present, now=self._now()):
            if known is not None and known.denied:
                raise Refused(
                    f"cannot join as {who.role} {who.name}: {why}",
                    hint="remove machine.json and tls/ in its state directory: it joins as a new machine",
                )
            raise InTheWay(
                f"cannot join as {who.role} {who.name}: {why}", hint="stop it, or wait until it is gone"
            )
        return [unchanged(identity_key, held.mod_revision if held else 0)], [self._record(who, key)]

    async def _admitted(self, who: Who) -> None:
        if self._admit is not None:
            await self._admit(who.role, who.name)

    def _record(self, who: Who, key: str) -> Put:
        expires_at = self._now() + _days(who.role) * 86400
        record = IdentityRecord(name=who.name, role=who.role.value, key=key, expires_at=expires_at)
        return Put(keys.identity(who.role, who.name), codec.encode(record))

    async def _label(self, machine: str, metadata: dict[str, str], compares: list[Compare], ops: list[Op]) -> None:
        """Let the token's metadata be what the operator set for the machine: the host can't say otherwise."""
        key = keys.machine_spec(machine)
        held = await self._store.get(key)
        spec = codec.decode(held.value, MachineSpec, key) if held else MachineSpec(id=machine)
        labelled = msgspec.structs.replace(spec, metadata={**spec.metadata, **metadata})
        compares.append(unchanged(key, held.mod_revision if held else 0))
        ops.append(Put(key, codec.encode(labelled)))

    def _reject(self, request: JoinRequest, address: str, why: str) -> None:
        self._attempts.failed(address, self._now())
        refusal = Refusal(request.id[:40], request.name[:64], address, why)
        logger.warning("let %a from %s not in by token %a: %s", refusal.name, address, refusal.token, why)
        self._refused(refusal)


def signing_masters(view: ClusterView) -> tuple[str, ...]:
    """Return where the masters answer that hold the authority's key."""
    records = [entry.value for _, entry in sorted(view.masters.items()) if entry.value.signs]
    return tuple(address for record in records for address in record.api if address.startswith("https://"))


def _who(request: JoinRequest) -> Who:
    """Return whom the certificate will name; raises `Refused` for a name that can't be one."""
    if request.role == AGENT:
        if not MACHINE_ID.fullmatch(request.name):
            raise Refused(f"cannot join: {request.name[:64]!a} is no machine id")
        return Who(request.name, Role.AGENT, (request.name,))
    names.validate_machine_name(request.name)
    for host in request.hosts:
        if not certificates.is_host(host) or MACHINE_ID.fullmatch(host):
            raise Refused(f"cannot join: {host[:64]!a} is no address of a master")
    return Who(request.name, Role.MASTER, (*request.hosts, *LOOPBACK))


def _days(role: Role) -> int:
    return AGENT_DAYS if role is Role.AGENT else SERVER_DAYS


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalnum()
