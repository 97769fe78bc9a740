"""`unitctl cluster protect-etcd`: from now on etcd lets each identity write its own keys alone, or no more.

etcd does not tell whether it takes identities from certificates before it asks for them. So a user with a password
is made that can take it back, its password is on disk before etcd begins to ask, and both go once every member
was seen to know this master by its certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from unit_master.cache import Cache
from unit_master.doctor.etcd_faults import roles_hold
from unit_master.etcd_roles.keeper import Keeper
from unit_master.etcd_roles.roles import ROOT, Wanted, strangers, wanted
from unit_master.identities import MACHINE_ID
from unitfleet import codec, identity, keys, wholefile
from unitfleet.api import EtcdProtection
from unitfleet.errors import InvalidConfig, Refused, StoreDenied, StoreError, UnitfleetError
from unitfleet.etcd.auth import EtcdAuth
from unitfleet.model import Protection
from unitfleet.store import Store

logger = logging.getLogger(__name__)

UNDO = "unitfleet-undo"
UNDO_FILE = "etcd-undo"

MENDED_S = 10.0
"""For all members to take up that etcd asks: one that lags is not one that is wrong."""

_HOW = "docs/certificates.md tells how: etcd with --client-cert-auth and --trusted-ca-file"


class Protecting:
    """Turns it on and off, one at a time. `user` is whose certificate this master shows to etcd, "" for none.

    `by_identity`: what etcd asks for are certificates of this cluster's authority.
    """

    def __init__(
        self,
        store: Store,
        cache: Cache,
        auth: EtcdAuth | None,
        keeper: Keeper | None,
        *,
        user: str,
        by_identity: bool,
        state_dir: Path,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._cache = cache
        self._auth = auth
        self._keeper = keeper
        self._user = user
        self._by_identity = by_identity
        self._undo_file = state_dir / UNDO_FILE
        self._now = now
        self._turn = asyncio.Lock()

    async def on(self) -> EtcdProtection:
        """Make all users and roles, and let etcd ask; done again it sets right what is not. Raises `Refused`."""
        async with self._turn:
            auth, keeper = self._parts()
            known = self._known()
            if unasked := await auth.open_members():
                raise Refused(
                    f"cannot protect etcd: {', '.join(unasked)} answers callers without a certificate", hint=_HOW
                )
            asks = await auth.enabled()
            if asks:
                await self._take_leftover_back(auth)
                asks = await auth.enabled()
            if asks:
                await self._may_administer(auth)
            had_root = await auth.user(ROOT) is not None
            await self._write(on=True)
            try:
                await keeper.provide(known, anew=not asks)
                await auth.add_user(ROOT)
                await auth.give(ROOT, ROOT)
                if not asks:
                    await self._let_it_ask(auth)
            except UnitfleetError:
                if not asks:
                    await self._write(on=False)
                raise
            users = {name: await auth.user(name) or frozenset() for name in sorted(await auth.users())}
            others = sorted(strangers(users, known))
            logger.info("protected etcd: %d machines, %d masters", len(known.machines), len(known.masters))
            return self._report(
                known, changed=not asks, others=[*others, *([ROOT] if had_root and not asks else ())]
            )

    async def off(self) -> EtcdProtection:
        """Let etcd ask nobody any more; users and roles stay, and are of no consequence."""
        async with self._turn:
            auth, _ = self._parts()
            asked = await auth.enabled()
            if asked:
                await self._may_administer(auth)
                await auth.disable()
            await self._write(on=False)
            logger.warning("etcd is protected no more: every identity may write every key")
            return self._report(wanted(self._cache.view), changed=asked)

    async def asks(self) -> bool | None:
        """Tell whether etcd asks who somebody is; None where it can't know, as it is shown no certificates."""
        return None if self._auth is None or not self._by_identity else await self._auth.enabled()

    def _parts(self) -> tuple[EtcdAuth, Keeper]:
        if self._auth is None or self._keeper is None or not self._user:
            raise Refused("cannot protect etcd: this master shows it no certificate", hint=_HOW)
        if not self._by_identity:
            raise Refused(
                "cannot protect etcd: its certificates are not of this cluster's authority, so that it would not "
                "know machines by them",
                hint=_HOW,
            )
        return self._auth, self._keeper

    def _known(self) -> Wanted:
        """Return who is to be known; raises `Refused` while a master is there that would be locked out."""
        view = self._cache.view
        for name, entry in sorted(view.masters.items()):
            user = entry.value.etcd_user
            if not user or MACHINE_ID.fullmatch(user):
                why = (
                    "shows etcd an agent's certificate"
                    if user
                    else "tells of no certificate that it shows to etcd"
                )
                raise Refused(
                    f"cannot protect etcd: master {name} would be locked out: it {why}",
                    hint=f"upgrade {name}, give it --etcd-cert, or stop it, and try again",
                )
        known = wanted(view)
        return Wanted(known.machines, known.masters | {self._user})

    async def _may_administer(self, auth: EtcdAuth) -> None:
        try:
            await auth.users()
        except StoreDenied as error:
            raise Refused(
                f"cannot protect etcd: it asks already, and {self._user} is none of its administrators",
                hint=f"as one of them: etcdctl user add {self._user} --no-password; "
                f"etcdctl user grant-role {self._user} root",
            ) from error

    async def _let_it_ask(self, auth: EtcdAuth) -> None:
        password = secrets.token_hex(32)
        await auth.delete_user(UNDO)
        await auth.add_user(UNDO, password)
        await auth.give(UNDO, ROOT)
        try:
            await asyncio.to_thread(wholefile.replace, self._undo_file, password.encode())
        except OSError as error:
            raise InvalidConfig(f"cannot protect etcd: cannot write {self._undo_file}: {error}") from error
        if silent := await auth.strict_members(self._user):
            await self._forget_undo(auth)
            raise Refused(f"cannot protect etcd: not every member answers: {_told(silent)}", hint="try again then")
        await auth.enable()
        if strict := await self._strict(auth):
            await auth.disable(UNDO, password)
            await self._forget_undo(auth)
            raise Refused(
                f"cannot protect etcd: members do not know us by our certificate: {_told(strict)}", hint=_HOW
            )
        await self._forget_undo(auth)

    async def _strict(self, auth: EtcdAuth) -> dict[str, str]:
        """Return the members that don't know this master, once none of them may be only late."""
        loop = asyncio.get_running_loop()
        until = loop.time() + MENDED_S
        while (strict := await auth.strict_members(self._user)) and loop.time() < until:
            if all("--client-cert-auth" in why for why in strict.values()):
                break
            await asyncio.sleep(0.2)
        return strict

    async def _take_leftover_back(self, auth: EtcdAuth) -> None:
        """Mend what a master that was killed in the middle left: etcd asks, and perhaps nobody can answer."""
        try:
            raw = await asyncio.to_thread(identity.read_secret, self._undo_file)
        except InvalidConfig:
            return  # there is none
        if await auth.strict_members(self._user):
            with contextlib.suppress(StoreError):
                await auth.disable(UNDO, raw.decode())
                logger.warning("let etcd ask nobody: it was begun, and not every member knew this master")
        if not await auth.enabled() or not await auth.strict_members(self._user):
            await self._forget_undo(auth)

    async def _forget_undo(self, auth: EtcdAuth) -> None:
        await auth.delete_user(UNDO)
        await asyncio.to_thread(self._undo_file.unlink, missing_ok=True)

    async def _write(self, *, on: bool) -> None:
        if self._cache.view.is_protected is not on:
            revision = await self._store.put(keys.PROTECTION, codec.encode(Protection(on=on, at=self._now())))
            await self._cache.wait_for(revision, MENDED_S)

    def _report(self, known: Wanted, *, changed: bool, others: list[str] | None = None) -> EtcdProtection:
        status = self._cache.store_status
        version = status.version if status else ""
        return EtcdProtection(
            rev=self._cache.view.revision,
            on=self._cache.view.is_protected,
            changed=changed,
            machines=len(known.machines),
            masters=tuple(sorted(known.masters)),
            others=tuple(others or ()),
            version=version,
            holds=roles_hold(version),
        )


def _told(by_member: dict[str, str]) -> str:
    return "; ".join(f"{address}: {why}" for address, why in sorted(by_member.items()))
