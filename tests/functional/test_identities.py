"""A cluster by TLS: hosts join by tokens, and who is not let in stays out. Real etcd, daemons and unitctl."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from harness.api_stub import ApiServer, Fleet
from harness.cluster import Machine
from harness.etcd import free_ports
from harness.secure import SecureCluster
from unitctl import context
from unitfleet import certificates, codec, identity, jointoken, keys, shipped, wholefile
from unitfleet.certificates import Authority, Who
from unitfleet.joinapi import Role
from unitfleet.joining import join
from unitfleet.model import Presence
from unitfleet.shipped import ShippedLine

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = 86400.0
SOON_S = 10.0
NOT_VALID = "cannot join: the token is not valid (used, expired or of another cluster)"
TICKS = "[Service]\nExecStart=/bin/sh -c 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done'\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster() -> AsyncIterator[SecureCluster]:
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        async with SecureCluster.on_loopback(Path(logs), machines=2, masters=2) as cluster:
            cluster.write("hello.service", "[Service]\nExecStart=/bin/sh -c 'echo hello; exec sleep 100000'\n")
            cluster.write("ticker.service", TICKS + "\n[X-Fleet]\nMachineMetadata=rack=r1\n")
            yield cluster


def authority(cluster: SecureCluster) -> Authority:
    folder = cluster.tls_dir("master1")
    return Authority((folder / identity.CA).read_bytes(), (folder / identity.CA_KEY).read_bytes())


def make(
    folder: Path, ca: Authority, who: Who, *, days: float = 30, since: float | None = None, trusts: bytes = b""
) -> Path:
    """Write an identity as somebody with the authority's key could make it."""
    identity.make_directory(folder)
    key = certificates.make_key()
    signed = certificates.sign_csr(ca, certificates.make_csr(key, "x"), who, days, since or time.time())
    for name, raw in (
        (identity.CA, trusts or ca.certificate),
        (identity.CERTIFICATE, signed),
        (identity.KEY, key),
    ):
        wholefile.replace(folder / name, raw)
    return folder


def token_of(machine: Machine) -> jointoken.JoinToken:
    """Return the token that a machine's agent was started with."""
    words = machine.agent.argv
    return jointoken.read(words[words.index("--join") + 1])


async def presence(cluster: SecureCluster, name: str) -> Presence:
    view = (await cluster.machine_views())[name]
    held = await cluster.store.get(keys.presence(view.id))
    assert held is not None
    return codec.decode(held.value, Presence)


async def ask_agent(cluster: SecureCluster, machine: str, who: Path | None) -> int:
    """Ask an agent's listener with an identity; return the status."""
    agent = await presence(cluster, machine)
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"https://{agent.address}:{agent.port}/v1/units",
            ssl=cluster.client(who),
            server_hostname=agent.id,
            headers={"Authorization": f"Bearer {cluster.api_token()}"},
        ) as answer,
    ):
        return answer.status


async def pid(cluster: SecureCluster, unit: str) -> int:
    """Return the main process of a unit's one copy, as the API says."""
    view = await cluster.unit(unit)
    assert view is not None
    return view.copies[0].pid


async def by(cluster: SecureCluster, name: str, trust: context.Trust, *words: str) -> tuple[int, str]:
    """Run unitctl by another context; return its exit code and what it said."""
    context.save(name, cluster.endpoints, "", cluster._environment(), current=False, trust=trust)
    ran = await cluster.unitctl("--context", name, *words)
    return ran.code, ran.stdout + ran.stderr


def _file(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


async def test_hosts_that_joined_run_units_and_show_their_output_through_an_https_api(
    cluster: SecureCluster,
) -> None:
    await cluster.must("start", "hello")
    assert await cluster.runs_once("hello.service")
    assert (await cluster.must("logs", "hello")).stdout == "hello\n"
    assert "m1" in (await cluster.must("top")).stdout

    async def found() -> bool:
        return "hello" in (await cluster.must("logs", "--all", "--grep", "hello")).stdout

    await cluster.wait_until(found, SOON_S, "its output is in the archive of a master, and found by any")
    await cluster.must("destroy", "hello")


async def test_what_is_secret_is_its_owners_alone_and_stands_neither_in_etcd_nor_in_a_log(
    cluster: SecureCluster,
) -> None:
    secrets: list[bytes] = [jointoken.read(await cluster.token()).secret.encode()]
    folders = [cluster.tls_dir("master1"), cluster.tls_dir("master2"), Path(cluster.trust.ca_file).parent]
    folders += [cluster.agent_tls(machine) for machine in cluster.machines]
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            if path.suffix == ".key" or path.name == identity.KEY:
                secrets += path.read_bytes().splitlines()[1:-1]
    assert len(secrets) > 10
    stored = b"".join(item.key.encode() + item.value for item in (await cluster.store.list("")).items)
    said = b"".join(daemon.log.read_bytes() for daemon in (*cluster.masters, *(m.agent for m in cluster.machines)))
    assert b"identities/agent" in stored and b"let agent" in said
    assert not [secret for secret in secrets if secret in stored or secret in said]
    await cluster.must("machines", "join-tokens", "rm", jointoken.read(await cluster.token()).id)


@pytest.mark.parametrize("stolen", ["used", "removed", "guessed", "mistyped", "of another cluster"])
async def test_a_stolen_token_lets_nobody_in_and_its_secret_is_in_no_log(
    cluster: SecureCluster, tmp_path: Path, stolen: str
) -> None:
    text = await cluster.token()
    token = jointoken.read(text)
    expected = NOT_VALID
    match stolen:
        case "used":
            await asyncio.to_thread(join, tmp_path, token, Role.AGENT, "e" * 32)
            assert identity.load(tmp_path, Role.AGENT).certificate.name == "e" * 32
        case "removed":
            await cluster.must("machines", "join-tokens", "rm", token.id)
        case "guessed":
            text = jointoken.write(jointoken.JoinToken(token.endpoints, token.ca, token.id, "ab" * 24))
        case "mistyped":
            text = text[:-3] + ("A" if text[-3] != "A" else "B") + text[-2:]
            expected = "cannot read the join token: a letter of it is wrong or missing"
        case "of another cluster":
            text = jointoken.write(jointoken.JoinToken(token.endpoints, "ab" * 32, token.id, token.secret))
            expected = "it is of another cluster than expected"
    newcomer = await cluster.newcomer("--join", text)
    try:
        said = await cluster.refused(newcomer)
        assert expected in said, said
        assert not (cluster.agent_tls(newcomer) / identity.CERTIFICATE).exists()
        logs = said + "".join(master.log.read_text() for master in cluster.masters)
        assert token.secret not in logs and text not in logs
        if stolen == "of another cluster":
            assert token.id not in logs.replace(f"made join token {token.id}", ""), "nothing was sent"
        elif stolen in ("used", "removed", "guessed"):
            why = {"used": "the token is spent", "removed": "no such token", "guessed": "the secret is wrong"}
            assert why[stolen] in logs and why[stolen] not in said, "the reason is for the log of the master alone"
    finally:
        cluster.machines.remove(newcomer)


async def test_what_another_authority_signed_opens_nothing_on_either_side(
    cluster: SecureCluster, tmp_path: Path
) -> None:
    foreign = certificates.make_ca("test", time.time())
    own = authority(cluster)
    master = make(tmp_path / "master", foreign, Who("master9", Role.MASTER), trusts=own.certificate)
    admin = make(tmp_path / "admin", foreign, Who("eve", Role.ADMIN), trusts=own.certificate)
    with pytest.raises((OSError, aiohttp.ClientError)):
        await ask_agent(cluster, "m1", master)
    trust = context.Trust(cluster.trust.ca_file, "", str(admin / "cert.pem"), str(admin / "key.pem"))
    ran = await by(cluster, "eve", trust, "list-units")
    assert ran[0] == 7 and "adserver" not in ran[1], ran
    own_trust = cluster.trust
    ran = await by(
        cluster,
        "other",
        context.Trust(
            str(_file(tmp_path / "ca", foreign.certificate)), "", own_trust.cert_file, own_trust.key_file
        ),
        "list-units",
    )
    assert ran[0] == 7 and "is not of a cluster that is trusted here" in ran[1], ran


async def test_a_certificate_that_has_expired_opens_nothing_and_unitctl_says_so(
    cluster: SecureCluster, tmp_path: Path
) -> None:
    past = time.time() - 100 * DAY
    ca = authority(cluster)
    old = make(tmp_path / "old", ca, Who("ada", Role.ADMIN), days=90, since=past)
    ran = await by(
        cluster,
        "old",
        context.Trust(cluster.trust.ca_file, "", str(old / "cert.pem"), str(old / "key.pem")),
        "list-units",
    )
    assert ran[0] == 7 and "takes no certificate that has expired, and" in ran[1], ran
    old_master = make(tmp_path / "master", ca, Who("master1", Role.MASTER, ("127.0.0.1",)), days=90, since=past)
    with pytest.raises((OSError, aiohttp.ClientError)):
        await ask_agent(cluster, "m1", old_master)


async def test_an_agents_certificate_opens_only_what_agents_need(cluster: SecureCluster) -> None:
    who = cluster.agent_tls(cluster.machines[0])
    for method, path in (
        ("GET", "/v1/units"),
        ("POST", "/v1/units"),
        ("GET", "/v1/machines"),
        ("POST", "/v1/machines/m2/deny"),
        ("POST", "/v1/join-tokens"),
        ("GET", "/v1/stream"),
        ("POST", "/v1/archive/search"),
        ("POST", "/v1/cluster/hold"),
    ):
        status, body = await cluster.curl(path, who, method=method)
        assert status == 401 and "does not open it" in body, (path, status, body)
    status, _ = await cluster.curl("/v1/ingest/logs", who, method="POST")
    assert status != 401
    assert (await cluster.curl("/v1/units", None))[0] == 401
    assert (await cluster.curl("/v1/units", None, token=cluster.api_token()))[0] == 200
    status, body = await cluster.curl("/v1/renew", None, method="POST", token=cluster.api_token())
    assert status == 401 and "shows no certificate" in body


async def test_a_machine_writes_output_for_itself_alone(cluster: SecureCluster) -> None:
    own, other = (await presence(cluster, "m1")).id, (await presence(cluster, "m2")).id
    shown = cluster.client(cluster.agent_tls(cluster.machines[0]))
    async with aiohttp.ClientSession() as session:
        for machine, status in ((own, 200), (other, 401)):
            line = ShippedLine(unit="a.service", machine=machine, seq=1, at=1.0, stream="stdout", text="x")
            url = f"{cluster.endpoints[0]}/v1/ingest/logs"
            async with session.post(url, data=shipped.encode(line) + b"\n", ssl=shown) as answer:
                assert answer.status == status, await answer.text()


async def test_an_agent_answers_masters_and_nobody_else(cluster: SecureCluster, tmp_path: Path) -> None:
    assert await ask_agent(cluster, "m1", cluster.tls_dir("master2")) == 200
    admin = Path(cluster.trust.ca_file).parent
    assert await ask_agent(cluster, "m1", admin) == 401
    assert await ask_agent(cluster, "m1", cluster.agent_tls(cluster.machines[1])) == 401
    assert await ask_agent(cluster, "m1", None) == 401
    agent = await presence(cluster, "m1")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"https://{agent.address}:{agent.port}/healthz", ssl=cluster.client(None))
    assert agent.address == "127.0.0.1", "it is known by its id, whatever its address"


async def test_an_authority_known_by_its_digest_and_a_token_are_enough(
    cluster: SecureCluster, tmp_path: Path
) -> None:
    plain = certificates.digest(authority(cluster).certificate)
    digest = ":".join(plain[place : place + 2] for place in range(0, 64, 2)).upper()  # as openssl writes it
    token = _file(tmp_path / "token", cluster.api_token().encode())
    token.chmod(0o600)
    env = {"UNITCTL_TOKEN_FILE": str(token)}
    context.save(
        "digest", cluster.endpoints, "", cluster._environment(), current=False, trust=context.Trust("", digest)
    )
    ran = await cluster.unitctl("--context", "digest", "list-machines", env=env)
    assert ran.code == 0 and "m1" in ran.stdout, ran
    context.save(
        "wrong", cluster.endpoints, "", cluster._environment(), current=False, trust=context.Trust("", "0" * 64)
    )
    ran = await cluster.unitctl("--context", "wrong", "list-machines", env=env)
    assert (
        ran.code == 7 and "is of another cluster than expected" in ran.stderr and "nothing was sent" in ran.stderr
    )


async def test_http_to_tls_and_https_to_a_plain_port_are_told_as_what_they_are(cluster: SecureCluster) -> None:
    plain = cluster.endpoints[0].replace("https://", "http://")
    for words in (("list-units",), ("machines", "cordon", "m1")):
        ran = await cluster.unitctl("--endpoint", plain, *words)
        assert ran.code == 7 and "speaks TLS: name it https://" in ran.stderr, ran
    with ApiServer(Fleet()) as server:
        for endpoint in (server.url.replace("http://", "https://"), f"https://{cluster.etcd.endpoints[0]}"):
            for words in (("list-units",), ("machines", "cordon", "m1")):
                ran = await cluster.unitctl("--endpoint", endpoint, *words)
                assert ran.code == 7 and "is it an http:// endpoint?" in ran.stderr, ran


async def test_the_unitctl_of_a_host_reaches_a_master_through_its_agent_as_itself(cluster: SecureCluster) -> None:
    socket = str(cluster._root / "m1.sock")
    ran = await cluster.unitctl("--endpoint", socket, "list-machines")
    assert ran.code == 6 and "it carries no token" in ran.stderr, "the agent lends nobody its own certificate"


async def test_renewal_breaks_no_connection_and_new_ones_show_the_new_certificate(cluster: SecureCluster) -> None:
    machine = cluster.machines[0]
    await cluster.must("start", "ticker")
    folder, agent = cluster.agent_tls(machine), await presence(cluster, "m1")
    machine.agent.kill()
    request = certificates.make_csr((folder / identity.KEY).read_bytes(), agent.id)
    since = time.time() - 16 * DAY
    aged = certificates.sign_csr(authority(cluster), request, Who(agent.id, Role.AGENT, (agent.id,)), 30, since)
    wholefile.replace(folder / identity.CERTIFICATE, aged)
    cluster.masters[0].kill()  # the one that signs
    machine.agent.start()

    async def back() -> bool:
        now = await presence(cluster, "m1")
        return now.nonce != agent.nonce and await ask_agent(cluster, "m1", cluster.tls_dir("master1")) == 200

    await cluster.wait_until(back, SOON_S, "the agent is back")

    async def told() -> bool:
        return "could not renew our certificate" in machine.agent.tail()

    await cluster.wait_until(told, SOON_S, "it is due, and nobody signs")
    follow = await asyncio.create_subprocess_exec(
        *(shutil.which("env") or "env", f"HOME={cluster._home}"),
        *(sys.executable, "-m", "unitctl", "logs", "-f", "-n", "1", "ticker"),
        stdout=subprocess.PIPE,
    )
    try:
        assert follow.stdout is not None
        async with asyncio.timeout(60):
            first = int((await follow.stdout.readline()).split()[-1])
            seen = [first]
            cluster.masters[0].start()
            while "renewed our certificate" not in machine.agent.tail() or len(seen) < 10:
                seen.append(int((await follow.stdout.readline()).split()[-1]))
            after = seen[-1]
            while seen[-1] < after + 5:
                seen.append(int((await follow.stdout.readline()).split()[-1]))
        assert seen == list(range(first, first + len(seen))), "no line was missed or doubled"
    finally:
        follow.kill()
        await follow.wait()
    now = await presence(cluster, "m1")
    shown = await asyncio.to_thread(ssl.get_server_certificate, (now.address, now.port), ca_certs=None, timeout=5)
    assert certificates.read(shown.encode()).not_after > time.time() + 29 * DAY
    said = machine.agent.log.read_text()
    assert said.count("began as machine") == 2, "once when the cluster began, once here: nothing restarted"
    assert (folder / identity.CERTIFICATE).read_bytes() != aged
    assert "broke off" not in "".join(master.log.read_text() for master in cluster.masters)
    await cluster.wait_until(cluster._masters_serve, SOON_S, "both masters serve")
    await cluster.must("destroy", "ticker")


async def test_an_expired_identity_stops_no_unit_and_a_new_token_brings_the_machine_back(
    cluster: SecureCluster,
) -> None:
    machine = cluster.machines[0]
    await cluster.must("start", "ticker")
    before = await pid(cluster, "ticker.service")
    folder, agent = cluster.agent_tls(machine), await presence(cluster, "m1")
    request = certificates.make_csr((folder / identity.KEY).read_bytes(), agent.id)
    who = Who(agent.id, Role.AGENT, (agent.id,))
    machine.agent.kill()
    over = certificates.sign_csr(authority(cluster), request, who, 30, time.time() - 31 * DAY)
    wholefile.replace(folder / identity.CERTIFICATE, over)
    await cluster.must("machines", "join-tokens", "rm", token_of(machine).id)
    machine.agent.start()  # with the token that is of no use any more, as it may stand in a file of settings

    async def told() -> bool:
        events = (await cluster.must("events", "--machine", "m1")).stdout
        return "the certificate has expired: join again with a new token" in events

    await cluster.wait_until(told, SOON_S, "an event tells that it has expired")
    assert "our certificate has expired: masters do not take it; join again" in machine.agent.tail()
    assert await pid(cluster, "ticker.service") == before and psutil.pid_exists(before)
    ran = await cluster.unitctl("logs", "ticker")
    assert "certificate has expired" in ran.stdout + ran.stderr, ran
    machine.agent.kill()
    words = list(machine.agent.argv)
    words[words.index("--join") + 1] = await cluster.token("--metadata", "zone=again")
    machine.agent.argv = tuple(words)
    machine.agent.start()

    async def reads() -> bool:
        return "tick" in (await cluster.unitctl("logs", "ticker")).stdout

    await cluster.wait_until(reads, SOON_S, "masters read its output again")
    assert await pid(cluster, "ticker.service") == before and psutil.pid_exists(before)
    assert (await cluster.machine_views())["m1"].metadata["zone"] == "again", "the token's metadata is its own"
    await cluster.must("destroy", "ticker")


async def test_a_machine_that_is_shut_out_is_cut_off_at_once(cluster: SecureCluster) -> None:
    await cluster.must("start", "ticker")
    shown, hidden = cluster.client(cluster.agent_tls(cluster.machines[0])), cluster.client(None)
    base, headers = cluster.endpoints[0], {"Authorization": f"Bearer {cluster.api_token()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{base}/v1/stream", ssl=shown) as stream,
        session.get(f"{base}/v1/logs/ticker.service?follow=true", ssl=hidden) as follow,
    ):
        assert (stream.status, follow.status) == (200, 200), "with a token anybody may, until he is shut out"
        assert "tick" in (await follow.content.readline()).decode()
        await cluster.must("machines", "deny", "m1")
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(aiohttp.ClientError):
                while await stream.content.readline():
                    pass  # what it reads beside the event stream's end is what the cluster does meanwhile
            lines = [json.loads(line) async for line in follow.content if line.strip()]
        assert lines[-1]["stream"] == "gap" and "broke off" in lines[-1]["text"], "and nothing is read of it"
        for endpoint in cluster.endpoints:
            async with session.get(f"{endpoint}/v1/units", ssl=shown) as no:
                assert no.status == 401 and "was shut out" in await no.text()
    said = await cluster.unitctl("logs", "ticker")
    assert "it was shut out" in said.stdout + said.stderr
    await cluster.must("machines", "allow", "m1")

    async def reads() -> bool:
        return "tick" in (await cluster.unitctl("logs", "ticker")).stdout

    await cluster.wait_until(reads, SOON_S, "it is let in again")
    await cluster.must("destroy", "ticker")


async def test_an_identity_that_was_copied_is_of_no_use_on_another_host(cluster: SecureCluster) -> None:
    original = cluster.machines[0]
    state = cluster._site.state_dir(original.host)
    clone = await cluster.newcomer()
    try:
        shutil.rmtree(cluster._site.state_dir(clone.host), ignore_errors=True)
        shutil.copytree(state, cluster._site.state_dir(clone.host), ignore=shutil.ignore_patterns("units", "lock"))
        said = await cluster.refused(clone)
        assert "another agent on this host does" in said, "the whole state: its machine is there already"
        (cluster._site.state_dir(clone.host) / "machine.json").unlink()
        said = await cluster.refused(clone)
        assert "the identity there is that of" in said and "it was copied from another host" in said
    finally:
        cluster.machines.remove(clone)
    assert original.agent.runs


async def test_masters_ask_each_other_by_their_certificates(cluster: SecureCluster) -> None:
    status, _ = await cluster.curl("/v1/archive/search", cluster.tls_dir("master2"), method="POST")
    assert status == 200
    status, _ = await cluster.curl("/v1/units", cluster.tls_dir("master2"))
    assert status == 401, "a master is no user of another"


async def test_a_plain_master_has_no_tokens_to_give_and_does_not_listen_wide(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    words = [sys.executable, "-m", "unit_master", "--state-dir", str(tmp_path), "--listen", f"0.0.0.0:{port}"]
    ran = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 2 and "without TLS the API stays on loopback" in ran.stderr
    assert "unitctl cluster init" in ran.stderr


async def test_a_master_without_the_authoritys_key_renews_at_one_that_has_it(cluster: SecureCluster) -> None:
    folder, master = cluster.tls_dir("master2"), cluster.masters[1]
    found = certificates.read((folder / identity.CERTIFICATE).read_bytes())
    master.stop()
    request = certificates.make_csr((folder / identity.KEY).read_bytes(), found.name)
    aged = certificates.sign_csr(
        authority(cluster), request, Who(found.name, Role.MASTER, found.hosts), 90, time.time() - 60 * DAY
    )
    wholefile.replace(folder / identity.CERTIFICATE, aged)
    master.start()

    async def renewed() -> bool:
        now = certificates.read((folder / identity.CERTIFICATE).read_bytes())
        return now.not_after > time.time() + 89 * DAY and set(now.hosts) == set(found.hosts)

    await cluster.wait_until(renewed, 2 * SOON_S, "it has a new certificate, for the same names")
    await cluster.wait_until(cluster._masters_serve, SOON_S, "it serves")


async def test_a_host_that_can_not_join_yet_is_told_so_and_not_that_the_master_fails(
    cluster: SecureCluster,
) -> None:
    machine, token = (await presence(cluster, "m1")).id, jointoken.read(await cluster.token())
    csr = certificates.make_csr(certificates.make_key(), machine).decode()
    wish = {"id": token.id, "secret": token.secret, "role": "agent", "name": machine, "csr": csr}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=cluster.client(None))) as session:
        async with session.post(f"{cluster.endpoints[0]}/v1/join", json=wish) as answer:
            assert (answer.status, (await answer.json())["code"]) == (409, "not_yet")
        seen = set()
        for _ in range(12):
            async with session.post(f"{cluster.endpoints[0]}/v1/join", json={**wish, "id": "nope"}) as answer:
                seen.add((answer.status, "Retry-After" in answer.headers))
    assert seen == {(401, False), (429, True)}
