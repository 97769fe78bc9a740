"""Keeps etcd's users and roles as `roles` says: for who joins at once, for all the rest while its master leads."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Iterable

from unit_master.cache import Cache, Update
from unit_master.etcd_roles.roles import AGENTS, ROOT, Wanted, own, role_of, shared, superfluous, wanted
from unitfleet import keys
from unitfleet.errors import StoreError
from unitfleet.etcd.auth import EtcdAuth
from unitfleet.joinapi import Role
from unitfleet.loop import reconcile_forever
from unitfleet.permissions import Permission

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""How often the names in etcd are looked at though nothing changed: what was cut off elsewhere heals."""

RETRY_S = 2.0
AT_ONCE = 8
_SAY_WHO = ("identities", "masters", "protection")


class Keeper:
    """Makes and removes users and roles. Every step may be cut off: done again it comes to the same."""

    def __init__(self, auth: EtcdAuth, cache: Cache) -> None:
        self._auth = auth
        self._cache = cache
        self._provided = False  # all were looked at, whole, since this master leads
        self._looked_at = -math.inf
        self._complained = False

    async def admit(self, role: str, name: str) -> None:
        """Give who just joined its user, where etcd is protected: it writes at once."""
        if not self._cache.view.is_protected:
            return
        try:
            await (self.add_machine(name) if role == Role.AGENT else self.add_master(name))
        except StoreError as error:
            logger.warning("could not make %s a user of etcd yet, the leader will: %s", name, error)

    async def run(self) -> None:
        """Keep them while this master leads, until cancelled."""
        self._provided, self._looked_at = False, -math.inf
        with self._cache.subscribe(_SAY_WHO) as subscription:

            async def keep() -> float | None:
                return await self._pass(subscription.take())

            await reconcile_forever(keep, subscription.changed, INTERVAL_S)

    async def provide(self, known: Wanted, *, anew: bool = False) -> None:
        """Let etcd know all of these, each with exactly what it may do, and no machine beside them.

        `anew`: users of machines are made anew, for while etcd asks nobody anybody may have made them.
        """
        await self._remove_others(known.machines)
        await self._role(AGENTS, shared())
        await _few_at_once(self.add_machine(machine, anew=anew) for machine in sorted(known.machines))
        await _few_at_once(self.add_master(master) for master in sorted(known.masters))

    async def add_machine(self, machine: str, *, anew: bool = False) -> None:
        """Give a machine a user and a role of its own."""
        if anew:
            await self._auth.delete_user(machine)
        await self._role(role_of(machine), own(machine))
        roles = {AGENTS, role_of(machine)}
        there = await self._user(machine)
        for role in sorted(roles - there):
            await self._auth.give(machine, role)
        for role in sorted(there - roles):
            await self._auth.take(machine, role)

    async def add_master(self, name: str) -> None:
        """Give a master a user that may do everything: compacting, and keeping users, are root's alone."""
        if ROOT not in await self._user(name):
            await self._auth.give(name, ROOT)
            logger.info("made master %s an administrator of etcd", name)

    async def _pass(self, update: Update) -> float | None:
        view, now = self._cache.view, asyncio.get_running_loop().time()
        if not view.is_protected or not (_concerns(update) or now - self._looked_at >= INTERVAL_S):
            return None
        known = wanted(view)
        try:
            if self._provided:
                there = await self._auth.users()
                await self._remove_others(known.machines)
                await _few_at_once(self.add_machine(machine) for machine in sorted(known.machines - there))
                await _few_at_once(self.add_master(name) for name in sorted(known.masters - there))
            else:
                await self.provide(known)
        except StoreError as error:
            self._looked_at = -math.inf
            if not self._complained:
                logger.warning("could not set etcd's users and roles right, trying again: %s", error)
            self._complained = True
            return RETRY_S
        self._provided, self._looked_at, self._complained = True, now, False
        return None

    async def _remove_others(self, machines: frozenset[str]) -> None:
        for machine in sorted(superfluous(await self._auth.roles(), machines)):
            await self._auth.delete_user(machine)  # first: with it goes all that the machine may do
            await self._auth.delete_role(role_of(machine))
            logger.info("took its user in etcd from machine %s: it is shut out", machine)

    async def _role(self, name: str, wanted: frozenset[Permission]) -> None:
        there = await self._auth.role(name)
        if there is None:
            await self._auth.add_role(name)
        for permission in sorted(wanted - (there or frozenset()), key=lambda each: each.range):
            await self._auth.permit(name, permission)
        for permission in there or ():
            if permission.range not in {each.range for each in wanted}:
                await self._auth.forbid(name, permission)

    async def _user(self, name: str) -> frozenset[str]:
        there = await self._auth.user(name)
        if there is None:
            await self._auth.add_user(name)
        return there or frozenset()


def _concerns(update: Update) -> bool:
    """Tell whether something may have changed that says who is who."""
    return update.keys is None or any(keys.split(key)[0] in _SAY_WHO for key in update.keys)


async def _few_at_once(doing: Iterable[Awaitable[None]]) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(each: Awaitable[None]) -> None:
        async with turns:
            await each

    await asyncio.gather(*map(one, doing))
