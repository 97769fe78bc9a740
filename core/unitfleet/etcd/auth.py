"""etcd's own users and roles: whom it knows, and which keys each may read and write.

By TLS with `--client-cert-auth` the common name of a client's certificate is its user; nothing else is shown.
Every change is harmless when made twice, so each is asked again until it is answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from unitfleet.errors import OutcomeUnknown, StoreDenied, StoreError, StoreUnavailable
from unitfleet.etcd.endpoint import Endpoint, Failure, Tls, TlsSource
from unitfleet.etcd.members import Members, Repeat
from unitfleet.etcd.messages import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTHENTICATE,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GET,
    ROLE_GRANT,
    ROLE_LIST,
    ROLE_REVOKE,
    STATUS,
    USER_ADD,
    USER_DELETE,
    USER_GET,
    USER_GRANT,
    USER_LIST,
    USER_REVOKE,
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    Method,
    RoleAddRequest,
    RoleDeleteRequest,
    RoleGetRequest,
    RoleGrantRequest,
    RoleListRequest,
    RoleRevokeRequest,
    StatusRequest,
    UserAddOptions,
    UserAddRequest,
    UserDeleteRequest,
    UserGetRequest,
    UserGrantRequest,
    UserListRequest,
    UserRevokeRequest,
)
from unitfleet.etcd.messages import Permission as PermissionMessage
from unitfleet.permissions import Access, Permission

MEMBER_S = 2.0  # for one member, when all are asked

_UNANSWERED = "no answer: "
_NOBODY = "unitfleet-nobody"
_OFF = "authentication is not enabled"
_THERE = "already exists"
_GONE = ("user name not found", "role name not found", "is not granted to")


class EtcdAuth:
    """A client of etcd's users and roles, with connections of its own. Made where its loop runs; `close` it."""

    def __init__(
        self, endpoints: Sequence[str], tls: TlsSource, *, timeout_s: float = 5.0, rng: random.Random | None = None
    ) -> None:
        self._tls = tls
        self._timeout_s = timeout_s
        self._members = Members(endpoints, tls, rng or random.Random())

    async def enabled(self) -> bool:
        """Tell whether etcd asks who somebody is: before 3.5 there is no other question that tells."""
        try:
            await self._ask(AUTHENTICATE, AuthenticateRequest(name=_NOBODY))
        except (StoreUnavailable, OutcomeUnknown):
            raise
        except StoreError as error:
            return _OFF not in str(error)
        return True

    async def users(self) -> frozenset[str]:
        """Return every user; raises `StoreDenied` for who may not administer them."""
        answer = await self._ask_of(USER_LIST, UserListRequest())
        if answer is None:  # it is we who are not there
            raise StoreDenied("cannot list the users of etcd: it has none of our name")
        return frozenset(answer.users)

    async def roles(self) -> frozenset[str]:
        """Return every role."""
        return frozenset((await self._ask(ROLE_LIST, RoleListRequest())).roles)

    async def user(self, name: str) -> frozenset[str] | None:
        """Return the roles of a user, None when there is none of this name."""
        answer = await self._ask_of(USER_GET, UserGetRequest(name=name))
        return None if answer is None else frozenset(answer.roles)

    async def role(self, name: str) -> frozenset[Permission] | None:
        """Return what a role permits, None when there is none of this name."""
        answer = await self._ask_of(ROLE_GET, RoleGetRequest(role=name))
        if answer is None:
            return None
        return frozenset(Permission(Access(each.permType), each.key, each.range_end) for each in answer.perm)

    async def add_user(self, name: str, password: str = "") -> None:
        """Make a user, one without a password for certificates alone. One that is there stays as it is."""
        options = UserAddOptions(no_password=not password)
        await self._make(USER_ADD, UserAddRequest(name=name, password=password, options=options))

    async def delete_user(self, name: str) -> None:
        """Remove a user, there or not: from now on it is refused everything."""
        await self._ask_of(USER_DELETE, UserDeleteRequest(name=name))

    async def give(self, user: str, role: str) -> None:
        """Give a user a role."""
        await self._ask(USER_GRANT, UserGrantRequest(user=user, role=role))

    async def take(self, user: str, role: str) -> None:
        """Take a role from a user, given or not."""
        await self._ask_of(USER_REVOKE, UserRevokeRequest(name=user, role=role))

    async def add_role(self, name: str) -> None:
        """Make a role that permits nothing; one that is there stays as it is."""
        await self._make(ROLE_ADD, RoleAddRequest(name=name))

    async def delete_role(self, name: str) -> None:
        """Remove a role, there or not."""
        await self._ask_of(ROLE_DELETE, RoleDeleteRequest(role=name))

    async def permit(self, role: str, permission: Permission) -> None:
        """Let a role permit this; its former access to the same keys ends."""
        perm = PermissionMessage(permType=permission.access.value, key=permission.key, range_end=permission.end)
        await self._ask(ROLE_GRANT, RoleGrantRequest(name=role, perm=perm))

    async def forbid(self, role: str, permission: Permission) -> None:
        """Let a role permit this no more, permitted or not."""
        request = RoleRevokeRequest(role=role, key=permission.key, range_end=permission.end)
        await self._ask_of(ROLE_REVOKE, request)

    async def enable(self) -> None:
        """Let etcd ask who somebody is; it wants a user `root` with the role `root`."""
        await self._ask(AUTH_ENABLE, AuthEnableRequest())

    async def disable(self, user: str = "", password: str = "") -> None:
        """Let etcd ask nobody any more: as who our certificate says, or as a user with a password."""
        token = ""
        if user:
            token = (await self._ask(AUTHENTICATE, AuthenticateRequest(name=user, password=password))).token
        await self._ask(AUTH_DISABLE, AuthDisableRequest(), token)

    async def open_members(self) -> tuple[str, ...]:
        """Return the members that answer somebody who shows no certificate."""
        shown = self._tls() if callable(self._tls) else self._tls
        answers = await self._each(Tls(authority=shown.authority), STATUS, StatusRequest())
        return tuple(address for address, why in answers.items() if not why.startswith(_UNANSWERED))

    async def strict_members(self, user: str) -> dict[str, str]:
        """Return why members do not take us for `user` by our certificate; those that do are left out."""
        answers = await self._each(self._tls, USER_GET, UserGetRequest(name=user))
        return {address: why.removeprefix(_UNANSWERED) for address, why in answers.items() if why}

    async def close(self) -> None:
        """Give up connections."""
        await self._members.close()

    async def _each(self, tls: TlsSource, method: Method, request: Any) -> dict[str, str]:
        """Ask every member by itself; return for each why it did not do it, "" where it did."""

        async def ask(address: str) -> str:
            endpoint = Endpoint(address, tls)
            try:
                await endpoint.connect(MEMBER_S)
                await endpoint.call(method, request, MEMBER_S, require_leader=False)
            except Failure as failure:
                return _UNANSWERED + failure.reason
            except StoreError as error:
                return str(error)
            finally:
                await endpoint.drop()
            return ""

        addresses = [endpoint.address for endpoint in self._members.all]
        return dict(zip(addresses, await asyncio.gather(*map(ask, addresses)), strict=True))

    async def _make(self, method: Method, request: Any) -> None:
        try:
            await self._ask(method, request)
        except StoreError as error:
            if _THERE not in str(error):
                raise

    async def _ask_of(self, method: Method, request: Any) -> Any:
        """Ask about one user or role; return None when it is not there."""
        try:
            return await self._ask(method, request)
        except StoreError as error:
            if any(words in str(error) for words in _GONE):
                return None
            raise

    async def _ask(self, method: Method, request: Any, token: str = "") -> Any:
        async def send(endpoint: Endpoint, share_s: float) -> Any:
            return await endpoint.call(method, request, share_s, token=token)

        return await self._members.ask(send, Repeat.HARMLESS, self._timeout_s)
