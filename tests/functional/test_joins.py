"""Who gets in by a join token: decided by a master over a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from harness.eventually import eventually
from unit_master.cache import Cache
from unit_master.identities import MOST_FAILURES, WINDOW_S
from unit_master.joins import InTheWay, Joins, NotNow, Refusal, Signing, TokenRefused, TooMany
from unit_master.orders import MachineOrder, Orders
from unitfleet import certificates, codec, jointoken, keys
from unitfleet.errors import NotFound, Refused
from unitfleet.joinapi import JoinAnswer, JoinRequest, JoinTokenWish, RenewRequest
from unitfleet.memory import MemoryStore
from unitfleet.model import MachineSpec, MachineStatus, Presence, RosterEntry

M1, M2, M3 = "1" * 32, "2" * 32, "3" * 32
DAY = 86400.0


class Gate:
    """A master that signs, its store, and the refusals that it noted. `now` may be moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.store = MemoryStore()
        self.cache = Cache(self.store)
        self.ca = certificates.make_ca("demo", self.now)
        self.refusals: list[Refusal] = []
        self.joins = self.master()
        self.orders = Orders(self.store, self.cache, now=lambda: self.now)

    def master(self, *, signs: bool = True) -> Joins:
        signing = Signing(self.ca.certificate, self.ca if signs else None, etcd=("10.0.0.9:2379",))
        return Joins(self.store, self.cache, signing, now=lambda: self.now, refused=self.refusals.append)

    async def token(self, **wish: object) -> jointoken.JoinToken:
        made = await self.joins.make_token(JoinTokenWish(**wish), ("https://10.0.0.1:4001",))  # type: ignore[arg-type]
        return jointoken.read(made.token)

    async def join(
        self,
        token: jointoken.JoinToken,
        name: str = M1,
        *,
        key: bytes | None = None,
        secret: str = "",
        role: str = "agent",
        hosts: tuple[str, ...] = (),
        address: str = "10.0.0.5",
    ) -> JoinAnswer:
        request = JoinRequest(
            id=token.id,
            secret=secret or token.secret,
            role=role,
            name=name,
            csr=certificates.make_csr(key or certificates.make_key(), "x").decode(),
            hosts=hosts,
        )
        return await self.joins.join(request, address)

    async def present(self, machine: str) -> None:
        """Let an agent be there under this id, on the roster."""
        told = Presence(
            id=machine, name=machine[:2], nonce="n", boot_id="b", fingerprint="f", address="127.0.0.1", port=1
        )
        entry = RosterEntry(id=machine, name=machine[:2], status=MachineStatus.READY, join=1)
        await self.store.put(keys.presence(machine), codec.encode(told))
        await self.seen(await self.store.put(keys.roster(machine), codec.encode(entry)))

    async def seen(self, revision: int = 0) -> None:
        await self.cache.wait_for(revision or (await self.store.list("")).revision, 5.0)


@contextlib.asynccontextmanager
async def a_gate() -> AsyncIterator[Gate]:
    gate = Gate()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(gate.cache.run())
        await gate.cache.wait_for(0, 5.0)
        yield gate
        following.cancel()


async def test_a_token_lets_a_host_in_once_and_says_where_the_store_is() -> None:
    async with a_gate() as gate:
        token = await gate.token()
        assert token.endpoints == ("https://10.0.0.1:4001",)
        assert token.ca == certificates.digest(gate.ca.certificate)
        key = certificates.make_key()
        answer = await gate.join(token, key=key)
        found = certificates.read(answer.certificate.encode())
        assert (found.name, found.role, found.hosts) == (M1, "agent", (M1,))
        assert certificates.fits(answer.certificate.encode(), key)
        assert answer.etcd == ("10.0.0.9:2379",)
        with pytest.raises(TokenRefused):
            await gate.join(token, M2)


async def test_of_many_at_once_only_as_many_get_in_as_the_token_has_uses() -> None:
    async with a_gate() as gate:
        token = await gate.token(uses=2)
        several = await asyncio.gather(
            *(gate.join(token, f"{number:032x}", address=f"10.0.0.{number}") for number in range(6)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, JoinAnswer) for each in several) == 2
        assert sum(isinstance(each, TokenRefused) for each in several) == 4


async def test_after_a_lost_answer_the_same_host_with_the_same_key_asks_again_and_nobody_else() -> None:
    async with a_gate() as gate:
        token, key = await gate.token(), certificates.make_key()
        await gate.join(token, key=key)
        assert certificates.fits((await gate.join(token, key=key)).certificate.encode(), key)
        with pytest.raises(TokenRefused):
            await gate.join(token, key=certificates.make_key())
        with pytest.raises(TokenRefused):
            await gate.join(token, M2, key=key)


async def test_every_bad_token_is_refused_in_the_same_words_and_the_reason_is_noted() -> None:
    async with a_gate() as gate:
        used, fresh, removed, over = [await gate.token() for _ in range(4)]
        await gate.join(used)
        await gate.joins.remove_token(removed.id)
        said: set[tuple[str, str | None]] = set()
        reasons: list[str] = []

        async def refused(token: jointoken.JoinToken, **how: str) -> None:
            with pytest.raises(TokenRefused) as caught:
                await gate.join(token, M2, address=f"10.0.1.{len(reasons)}", **how)  # type: ignore[arg-type]
            said.add((caught.value.message, caught.value.hint))
            reasons.append(gate.refusals[-1].why)

        await refused(used)
        await refused(fresh, secret="00" * 24)
        await refused(fresh, secret="no hexadecimal digits")
        await refused(fresh, role="master")
        await refused(removed)
        await refused(jointoken.JoinToken((), "", "../units", "00" * 24))
        gate.now += 3601
        await refused(over)
        assert len(said) == 1
        assert reasons[0].startswith("the token is spent") and reasons[1] == reasons[2] == "the secret is wrong"
        assert reasons[3] == "the token is for agents, not for 'master'"
        assert reasons[4].startswith("no such token") and reasons[6] == "the token is over"
        with pytest.raises(NotFound):
            await gate.joins.remove_token("nosuch")


async def test_a_token_that_is_over_leaves_nothing_in_the_store() -> None:
    async with a_gate() as gate:
        token = await gate.token(ttl_s=1)

        async def gone() -> bool:
            return await gate.store.get(keys.join_token(token.id)) is None

        await eventually(gone, within_s=10.0, what=lambda: "the token is still there")


async def test_who_guesses_waits_and_others_do_not() -> None:
    async with a_gate() as gate:
        token = await gate.token()
        for _ in range(MOST_FAILURES):
            with pytest.raises(TokenRefused):
                await gate.join(token, secret="00" * 24, address="10.6.6.6")
        with pytest.raises(TooMany, match="too many attempts"):
            await gate.join(token, address="10.6.6.6")
        assert await gate.join(token, address="10.0.0.5")
        gate.now += WINDOW_S + 1
        with pytest.raises(TokenRefused):
            await gate.join(token, M2, address="10.6.6.6")


async def test_nobody_takes_the_place_of_a_machine_that_is_there() -> None:
    async with a_gate() as gate:
        await gate.join(await gate.token())
        await gate.present(M1)
        token = await gate.token()
        with pytest.raises(InTheWay, match="an agent of this id is there, with another key"):
            await gate.join(token)
        gate.now += 31 * DAY
        assert await gate.join(await gate.token()), "its certificate has expired: it may join again"


async def test_a_machine_that_was_shut_out_does_not_come_back_by_a_token_until_it_is_let_in() -> None:
    async with a_gate() as gate:
        key = certificates.make_key()
        await gate.join(await gate.token(), key=key)
        await gate.present(M1)
        await gate.seen(await gate.orders.machine(M1, MachineOrder.DENY))
        assert gate.cache.view.is_denied("agent", M1)
        with pytest.raises(Refused, match="it was shut out"):
            await gate.join(await gate.token(), key=key)
        request = RenewRequest(csr=certificates.make_csr(key, M1).decode())
        with pytest.raises(Refused, match="it was shut out"):
            await gate.joins.renew(request, "agent", M1, (M1,))
        await gate.seen(await gate.orders.machine(M1, MachineOrder.ALLOW))
        assert await gate.joins.renew(request, "agent", M1, (M1,))


async def test_a_machine_that_is_removed_is_shut_out_too() -> None:
    async with a_gate() as gate:
        await gate.join(await gate.token())
        await gate.present(M1)
        lost = RosterEntry(id=M1, name="11", status=MachineStatus.LOST, join=1)
        await gate.store.put(keys.roster(M1), codec.encode(lost))
        await gate.seen(await gate.store.delete(keys.presence(M1)))
        await gate.seen(await gate.orders.machine(M1, MachineOrder.RM))
        assert gate.cache.view.is_denied("agent", M1)
        assert gate.cache.view.machine_specs[M1].value.removed_join == 1


async def test_who_joined_and_was_never_seen_is_shut_out_by_the_id_that_the_token_names() -> None:
    async with a_gate() as gate:
        await gate.join(await gate.token())
        await gate.seen()
        assert [view.joined for view in gate.joins.tokens()] == [(M1,)]
        await gate.seen(await gate.orders.machine(M1[:8], MachineOrder.DENY))
        assert gate.cache.view.is_denied("agent", M1)
        with pytest.raises(NotFound):
            await gate.orders.machine("2222", MachineOrder.DENY)


async def test_a_machine_without_a_certificate_is_removed_as_ever_and_cannot_be_shut_out() -> None:
    async with a_gate() as gate:
        await gate.present(M3)
        with pytest.raises(Refused, match="cannot shut out 33: it has no certificate"):
            await gate.orders.machine(M3, MachineOrder.DENY)


async def test_the_tokens_metadata_is_the_operators_word_about_the_machine() -> None:
    async with a_gate() as gate:
        before = MachineSpec(id=M1, metadata={"zone": "a", "disk": "ssd"}, cordoned=True)
        await gate.store.put(keys.machine_spec(M1), codec.encode(before))
        await gate.join(await gate.token(metadata={"zone": "dmz"}))
        held = await gate.store.get(keys.machine_spec(M1))
        assert held is not None
        spec = codec.decode(held.value, MachineSpec)
        assert spec.metadata == {"zone": "dmz", "disk": "ssd"} and spec.cordoned


@pytest.mark.parametrize("name", ["10.0.0.1", "master1", "../x", "", "A" * 32, "1" * 31])
async def test_no_agent_gets_a_name_that_a_master_could_be_asked_under(name: str) -> None:
    async with a_gate() as gate:
        with pytest.raises(Refused, match="is no machine id"):
            await gate.join(await gate.token(), name)


async def test_a_master_joins_under_its_addresses_and_an_agent_gets_none() -> None:
    async with a_gate() as gate:
        answer = await gate.join(await gate.token(), hosts=("10.0.0.1",))
        assert certificates.read(answer.certificate.encode()).hosts == (M1,)
        token = await gate.token(role="master")
        answer = await gate.join(token, "master2", role="master", hosts=("10.0.0.2", "m2.example.org"))
        found = certificates.read(answer.certificate.encode())
        assert found.role == "master" and {"10.0.0.2", "m2.example.org", "127.0.0.1"} <= set(found.hosts)
        for host in (M1, "a b", ""):
            with pytest.raises(Refused, match="is no address of a master"):
                await gate.join(await gate.token(role="master"), "master3", role="master", hosts=(host,))


async def test_a_master_without_the_authoritys_key_says_who_has_it() -> None:
    async with a_gate() as gate:
        gate.joins = gate.master(signs=False)
        with pytest.raises(NotNow, match="this master has no authority's key"):
            await gate.join(await gate.token())


async def test_the_store_holds_nothing_by_which_one_could_join() -> None:
    async with a_gate() as gate:
        token, key = await gate.token(), certificates.make_key()
        await gate.join(token, key=key)
        held = b"".join(item.key.encode() + item.value for item in (await gate.store.list("")).items)
        for secret in (token.secret.encode(), bytes.fromhex(token.secret), key, gate.ca.key):
            assert secret not in held
