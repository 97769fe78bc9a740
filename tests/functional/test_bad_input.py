"""Bad input: each gets one clear error, the exit code that fits, and changes nothing.

A real etcd, master and agent, the real `unitctl`; what a row of a table is refused with stands beside it. The
etcd of this module has a small quota, which its last test fills.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from harness.bad_requests import REQUESTS
from harness.cluster import Cluster, Ran
from harness.daemon import Daemon
from harness.etcd import free_ports
from harness.eventually import eventually
from unitfleet import codec, keys
from unitfleet.errors import StoreFull
from unitfleet.model import MachineStatus, RosterEntry

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_S = 10.0
PATIENCE_S = 1.1
"""After so long a caller whose changes were too many may make the next."""
AT_ONCE = 3

FAILURE, USAGE, NOT_FOUND, DENIED, UNREACHABLE = 1, 2, 4, 6, 7

SERVICE = "[Service]\nExecStart=/bin/sleep 100000\n"
QUOTA = 4 * 1024 * 1024


def fleet(lines: str) -> str:
    return f"{SERVICE}\n[X-Fleet]\n{lines}\n"


def container(lines: str) -> str:
    return f"[Container]\nImage=busybox\n{lines}\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A command, the code it ends with, and what its error says: each of `said` once."""

    args: tuple[str, ...]
    code: int
    said: tuple[str, ...]


def row(command: str | Sequence[str], code: int, *said: str) -> Row:
    return Row(tuple(command.split() if isinstance(command, str) else command), code, said)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """One master and one agent, on which `good.service` and `good@1.service` run."""
    with tempfile.TemporaryDirectory(prefix="uf-logs-") as logs:
        args = [f"--quota-backend-bytes={QUOTA}"]
        async with Cluster.on_loopback(Path(logs), machines=1, masters=1, etcd_args=args) as cluster:
            for name in ("good.service", "good@.service", "other.service"):
                cluster.write(name, SERVICE)
            await cluster.must("start", "good.service", "good@1")
            yield cluster


async def wishes(cluster: Cluster) -> dict[str, int]:
    """What users and leader asked for, by key: the revision it was written at."""
    listing = await cluster.store.list(keys.PREFIX)
    kinds = ("units", "specs", "placements", "machine-spec", "brake")
    return {item.key: item.mod_revision for item in listing.items if keys.split(item.key)[0] in kinds}


def faults(row: Row, ran: Ran) -> list[str]:
    """Say what is wrong with an answer, beside the answer."""
    lines = ran.stderr.splitlines()
    found = [f"exit {ran.code}, not {row.code}"] if ran.code != row.code else []
    if sum(line.startswith("error:") for line in lines) != 1 or ran.stdout:
        found.append("not one error on stderr, and nothing on stdout")
    found += [
        f"{words!r} is said {ran.stderr.count(words)} times" for words in row.said if ran.stderr.count(words) != 1
    ]
    return [f"unitctl {' '.join(row.args)}: {'; '.join(found)}\n{ran}"] if found else []


async def assert_refused(cluster: Cluster, rows: Sequence[Row]) -> None:
    """Run every command; all are refused as their rows say, and the store is as it was."""
    before = await wishes(cluster)
    turn = asyncio.Semaphore(AT_ONCE)

    async def run(row: Row) -> list[str]:
        async with turn:
            return faults(row, await cluster.unitctl(*row.args))

    found = await asyncio.gather(*map(run, rows))
    assert not any(found), "\n".join(fault for each in found for fault in each)
    assert await wishes(cluster) == before


# ------------------------------------------------------------------ unit files

REFUSED_FILES = {
    "key.service": (
        fleet("MachinMetadata=zone=a"),
        "key.service:5: unknown key 'MachinMetadata'",
        "MachineMetadata?",
    ),
    "image.container": (container("Imagee=x"), "image.container:3: unknown key 'Imagee'", "did you mean Image?"),
    "nocpu.service": (
        fleet("CPU=0"),
        "nocpu.service:5: CPU=: '0' is no number of cores from 0.001 to 4096",
        "0.5",
    ),
    "lesscpu.service": (fleet("CPU=-1"), "lesscpu.service:5: CPU=: '-1' is no number of cores", "0.5"),
    "memory.service": (
        fleet("Memory=99999T"),
        "memory.service:5: Memory=: '99999T' is not from 1M to 64T",
        "512M",
    ),
    "port.container": (container("PublishPort=99999"), "port.container:3: PublishPort=: '99999'", "1 to 65535"),
    "peers.service": (
        fleet("Global=true\nMachineOf=good.service"),
        "peers.service:6: Global= cannot be used with MachineOf=",
        "leave out one",
    ),
    "pinned.service": (
        fleet(f"MachineID={'a' * 32}\nConflicts=a*"),
        "MachineID= cannot be used with Conflicts=",
        "leave out one",
    ),
    "egress.service": (fleet("Egress=10MB"), "egress.service:5: Egress=: '10MB' is bytes", "write 80M"),
    "strict.service": (fleet("Singleton=yes"), "strict.service:5: Singleton=: 'yes' is not strict"),
    "empty.service": (
        "",
        "empty.service: there is neither a [Service] nor a [Container] section",
        "say what to run",
    ),
    "control.service": (
        f"{SERVICE}Environment=A=\x01\n",
        "control.service:3: control character '\\x01'",
        "plain UTF-8",
    ),
    "large.service": (SERVICE + "#" * 65 * 1024, "large.service: it is larger than 64 KiB", "text file"),
    "three@.service": (
        SERVICE + "[X-Fleet]\nCPUU=1\n",
        "three@.service:4: unknown key 'CPUU'",
        "did you mean CPU?",
    ),
}


async def test_a_file_with_a_fault_is_refused_by_its_line(cluster: Cluster) -> None:
    for name, (text, *_) in REFUSED_FILES.items():
        cluster.write(name, text)
    rows = [row(["submit", name], FAILURE, *said) for name, (_, *said) in REFUSED_FILES.items()]
    rows.append(row("start key.service", FAILURE, "key.service:5: unknown key"))
    rows.append(row("start three@<1..3>", FAILURE, "three@.service:4", "3 units (three@1.service"))
    await assert_refused(cluster, rows)


async def test_what_is_no_text_file_is_refused(cluster: Cluster) -> None:
    (cluster.units_dir / "junk.service").write_bytes(bytes(range(255, 0, -1)))
    (cluster.units_dir / "folder.service").mkdir()
    (cluster.units_dir / "broken.service").symlink_to("/proc/self/mem")  # opens, and fails when it is read
    cluster.write("secret.service", SERVICE)
    (cluster.units_dir / "secret.service").chmod(0)
    rows = [
        row("submit junk.service", FAILURE, "cannot read junk.service: it is not UTF-8 text", "text file"),
        row("submit folder.service", FAILURE, "cannot read folder.service: is a directory"),
        row("submit broken.service", FAILURE, "cannot read broken.service: input/output error"),
        row("submit .", USAGE, "'.' as a unit: it is a directory", "name the unit files in it"),
        row("submit folder.service/", USAGE, "it is a directory"),
        row("submit nowhere/x.service", NOT_FOUND, "cannot find unit x.service", "give a path"),
    ]
    if os.geteuid() != 0:  # root reads everything
        rows.append(row("submit secret.service", FAILURE, "cannot read secret.service: permission denied"))
    await assert_refused(cluster, rows)


# ------------------------------------------------------------------ names and arguments


async def test_names_that_cannot_be_are_refused(cluster: Cluster) -> None:
    rows = [
        row("start good@.service", FAILURE, "cannot start a template: good@.service", "such as good@1.service"),
        row(["stop", "a\x01b.service"], USAGE, "invalid character '\\x01'", "letters, digits and"),
        row(["start", "a b.service"], USAGE, "invalid character ' '", "letters, digits and"),
        row(["start", "x" * 260 + ".service"], USAGE, "exceeds maximum length (256)", "shorter"),
        row("stop a..b.service", USAGE, 'cannot contain ".."'),
        row("start good@9..1", USAGE, "the range 9..1 is reversed", "write 1..9"),
        row("start good@1..999999", USAGE, "more than 10000 names", "use smaller ranges"),
        row("start good@{1", USAGE, "'{' stands alone", "write <1..4>"),
        row("stop [a", USAGE, "cannot use pattern [a: a [ that is not closed"),
    ]
    await assert_refused(cluster, rows)


async def test_what_nobody_knows_is_not_found(cluster: Cluster) -> None:
    verbs = ("stop", "unload", "restart", "destroy", "status", "cat", "logs", "explain")
    rows = [
        row(f"{verb} nobody.service", NOT_FOUND, "cannot find unit nobody.service: it was never") for verb in verbs
    ]
    rows += [
        row("start nobody.service", NOT_FOUND, "cannot find unit nobody.service", "looked for nobody.service in"),
        row("start goood.service", NOT_FOUND, "cannot find unit goood.service", "did you mean good.service?"),
        row("stop goood.service", NOT_FOUND, "cannot find unit goood.service", "did you mean good.service?"),
        row("status goood.service", NOT_FOUND, "cannot find unit goood.service", "did you mean good.service?"),
        row("stop none@<1..3>", NOT_FOUND, "3 units (none@1.service, none@2.service, none@3.service)"),
        row("stop none*", NOT_FOUND, "cannot find a unit that matches none*", "unitctl list-unit-files"),
        row("list-units none*", NOT_FOUND, "cannot find a unit that matches none*"),
        row("machines cordon nobody", NOT_FOUND, "cannot find machine nobody: it never joined", "list-machines"),
        row(["machines", "cordon", ""], USAGE, "cannot use machine name ''"),
        row("machines lost m1", FAILURE, "cannot declare m1 lost: its agent is there", "machines drain m1"),
        row("machines rm m1", FAILURE, "cannot remove m1: it is there", "machines lost m1"),
        row("--context nobody list-units", NOT_FOUND, "cannot find context 'nobody' in", "contexts there: test"),
    ]
    await assert_refused(cluster, rows)


async def test_a_prefix_of_two_machines_is_refused(cluster: Cluster) -> None:
    entry = RosterEntry(id="e" * 32, name="m2", status=MachineStatus.LOST, join=1)
    await cluster.store.put(keys.roster(entry.id), codec.encode(entry))
    said = ("cannot tell which machine m is: m1 (", "m2 (eeeeeeee)", "give more of its name")
    await assert_refused(cluster, [row("machines cordon m", FAILURE, *said)])
    await cluster.must("machines", "rm", "m2")


async def test_a_wrong_command_line_is_a_usage_error(cluster: Cluster) -> None:
    verbs = ("submit", "load", "start", "stop", "unload", "destroy", "restart", "status", "cat", "logs", "explain")
    rows = [row(verb, USAGE, "missing argument 'UNIT...'", f"unitctl {verb} --help") for verb in verbs]
    rows += [
        row("machines cordon", USAGE, "missing argument 'MACHINE...'"),
        row("scale good@", USAGE, "missing argument 'NUMBER'"),
        row("scale good@ many", USAGE, "'many' is not a valid integer"),
        row("scale good@ 999999", USAGE, "999999 is not in the range 0<=x<=10000"),
        row("strat x", USAGE, "no such command: 'strat'", "'start'?"),
        row("start --forc x", USAGE, "no such option '--forc'", "unitctl start --help"),
        row("start good.service --timeout soon", USAGE, "'soon' is no duration", "30s, 2m, 1h30m or infinity"),
        row("start good.service --timeout -5", USAGE, "'-5' is no duration"),
        row("list-units -o xml", USAGE, "'xml' is not one of 'table', 'wide', 'json', 'jsonl', 'name'"),
        row("list-units --fields nope", USAGE, "cannot show field 'nope'", "fields: unit, machine"),
        row("logs good.service -n -3", USAGE, "-3 is not in the range"),
    ]
    await assert_refused(cluster, rows)


# ------------------------------------------------------------------ the way to the API


async def test_an_api_that_does_not_answer_is_named(cluster: Cluster) -> None:
    one, two = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    etcd = f"http://{cluster.etcd.endpoints[0]}"
    rows = [
        row(f"--endpoint {one},{two} list-units", UNREACHABLE, f"{one}: connection refused", f"{two}: connection"),
        row(f"--endpoint {one} start other.service", UNREACHABLE, f"{one}: connection refused"),
        row("--endpoint unix:///nope.sock list-units", UNREACHABLE, "unix:///nope.sock: no such socket"),
        row(
            f"--endpoint {etcd} list-units", UNREACHABLE, f"cannot understand {etcd}", "the API of a unit-master?"
        ),
        row(
            "--endpoint ftp://x list-units", USAGE, "'ftp://x': it names no host and port", "https://10.0.0.1:4001"
        ),
    ]
    await assert_refused(cluster, rows)


async def test_a_token_that_is_wrong_or_open_to_all_is_refused(cluster: Cluster) -> None:
    token = cluster.units_dir / "token"
    token.write_text("x" * 40)
    env = {"UNITCTL_TOKEN_FILE": str(token), "UNITCTL_ENDPOINT": cluster.endpoints[0]}
    found = []
    for mode, code, said in (
        (0o600, DENIED, ("its token is not one of this cluster", "UNITCTL_TOKEN_FILE")),
        (0o644, USAGE, (f"cannot use the token file {token}: everybody can read it", f"chmod 600 {token}")),
    ):
        token.chmod(mode)
        found += faults(row("list-units", code, *said), await cluster.unitctl("list-units", env=env))
    env["UNITCTL_TOKEN_FILE"] = "/nope"
    missing = row("list-units", USAGE, "cannot read the token file /nope: no such file")
    found += faults(missing, await cluster.unitctl("list-units", env=env))
    assert not found, "\n".join(found)


def ask(cluster: Cluster, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, str]:
    """Send one raw request with the cluster's token; return status and body."""
    where = urlsplit(cluster.endpoints[0])
    token = Path(flag(cluster.masters[0], "--token-file")).read_text().strip()
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    try:
        connection.request(method, path, body=body, headers={"Authorization": f"Bearer {token}"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def test_a_request_that_unitctl_would_not_send_is_refused(cluster: Cluster) -> None:
    before = await wishes(cluster)
    found = []
    for method, path, body, headers, status, said in REQUESTS:
        answer = await asyncio.to_thread(ask, cluster, method, path, body, headers)
        if answer[0] == 429:  # one caller's changes are bounded
            await asyncio.sleep(PATIENCE_S)
            answer = await asyncio.to_thread(ask, cluster, method, path, body, headers)
        if answer[0] != status or said not in answer[1]:
            found.append(f"{method} {path} {(body or b'')[:80]!r}: {answer}, not {status} with {said!r}")
    assert not found, "\n".join(found)
    assert await wishes(cluster) == before


# ------------------------------------------------------------------ daemons


def flag(daemon: Daemon, name: str) -> str:
    """Return what a daemon was started with."""
    return daemon.argv[daemon.argv.index(name) + 1]


async def run_daemon(*argv: str, env: dict[str, str] | None = None) -> Ran:
    """Run a daemon that has to end by itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "HOME": "/", **(env or {})},
    )
    try:
        async with asyncio.timeout(SOON_S):
            stdout, stderr = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return Ran(process.returncode or 0, stdout.decode(), stderr.decode(), 0.0)


async def test_a_daemon_that_cannot_work_as_it_was_told_says_why_and_ends(
    cluster: Cluster, tmp_path: Path
) -> None:
    files = {"broken": "listen = = x", "unknown": 'lissten = "x"', "typed": "listen = 5"}
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "file").write_text("")
    master, agent = cluster.masters[0], cluster.machines[0].agent
    own = ("--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0", "--etcd", cluster.etcd.endpoints[0])
    taken = {"unit_master": flag(master, "--socket"), "unit_agent": flag(agent, "--socket")}
    rows: list[tuple[tuple[str, ...], str, str]] = [
        (("unit_master", "--lissten", "x"), "unknown flag or argument --lissten", "did you mean --listen?"),
        (("unit_master", "--profile", "warp"), "'warp' is none of default, fast, fastest", ""),
        (("unit_master", "--listen", "nope"), "cannot use listen: 'nope' is not HOST:PORT", ""),
        (("unit_master", "--listen", "0.0.0.0:1"), "cannot listen on 0.0.0.0:1: without TLS", "127.0.0.1"),
        (("unit_master", *own, "--listen", flag(master, "--listen")), "address already in use", "--listen"),
        (("unit_master", "--config", str(tmp_path / "broken.toml")), "at line 1", "lines are like"),
        (("unit_agent", "--config", str(tmp_path / "nope.toml")), "nope.toml: no such file", "--config"),
        (("unit_agent", "--drivers", "docker,podman"), "cannot use drivers: podman", "process, docker"),
        (("unit_agent", "--starts-at-once", "many"), "--starts-at-once: 'many' is not a whole number", ""),
        (("unit_agent", "--metadata", "zone"), "cannot use --metadata: 'zone' is not key=value", ""),
        (("unit_agent", "--etcd", "nope"), "cannot use etcd: 'nope' is not HOST:PORT", ""),
        (
            ("unit_agent", *own, "--state-dir", flag(agent, "--state-dir")),
            "another agent runs there",
            "--state-dir",
        ),
    ]
    for program, socket in taken.items():
        rows += [
            ((program, *own, "--socket", socket), f"cannot listen on {socket}: another process", "give --socket"),
            ((program, *own, "--socket", str(tmp_path / "file")), "a file that is no socket is there", "--socket"),
            ((program, *own, "--state-dir", str(tmp_path / "file"), "--socket", ""), "file exists", "can write"),
            ((program, "--config", str(tmp_path / "unknown.toml")), "unknown key lissten", "did you mean listen?"),
            (
                (program, "--check", "--config", str(tmp_path / "typed.toml")),
                "cannot use listen in",
                "5 is not text",
            ),
        ]
    turn = asyncio.Semaphore(AT_ONCE)

    async def run(argv: tuple[str, ...], *said: str) -> list[str]:
        async with turn:
            ran = await run_daemon(*argv)
        last = ran.stderr[ran.stderr.rfind(f"{argv[0].replace('_', '-')}: ") :]
        told = ran.code == USAGE and all(words in last for words in said) and "Traceback" not in ran.stderr
        return [] if told else [f"{' '.join(argv)}: {ran}"]

    found = await asyncio.gather(*(run(*each) for each in rows))
    assert not any(found), "\n".join(fault for each in found for fault in each)
    ran = await run_daemon("unit_master", env={"UNITFLEET_PROFILE": "warp"})
    assert (ran.code, "cannot use UNITFLEET_PROFILE: 'warp'" in ran.stderr) == (USAGE, True), ran


async def test_an_agent_with_copied_state_is_refused_while_the_first_lives(
    cluster: Cluster, tmp_path: Path
) -> None:
    agent = cluster.machines[0].agent
    shutil.copytree(flag(agent, "--state-dir"), tmp_path / "copy", ignore=shutil.ignore_patterns("units", "lock"))
    swaps = {"--state-dir": str(tmp_path / "copy"), "--socket": str(tmp_path / "copy.sock")}
    argv = [swaps.get(before, word) for before, word in zip(("", *agent.argv[1:]), agent.argv[1:], strict=False)]
    before = await cluster.running("good.service")
    ran = await run_daemon(*argv[argv.index("unit_agent") :])
    assert ran.code == 3 and "another agent on this host does" in ran.stderr and "machine.json" in ran.stderr, ran
    assert agent.runs and await cluster.running("good.service") == before


async def test_unit_agent_local_says_that_no_agent_is_there(cluster: Cluster) -> None:
    ran = await run_daemon("unit_agent", "local", "--socket", "/nope.sock", "ps")
    assert ran.code == FAILURE and ran.stderr.count("cannot reach the agent at /nope.sock: no such file") == 1, ran
    assert "hint: is unit-agent running" in ran.stderr
    socket = flag(cluster.machines[0].agent, "--socket")
    ran = await run_daemon("unit_agent", "local", "--socket", socket, "stop", "nobody")
    assert ran.code == FAILURE and "cannot stop nobody.service: it is not on m1" in ran.stderr, ran


# ------------------------------------------------------------------ garbage in the store


async def test_garbage_in_the_store_is_shown_hinders_nothing_and_stops_nothing(cluster: Cluster) -> None:
    store, machine = cluster.store, (await cluster.machine_views())["m1"].id
    held = {unit: await cluster.running(unit) for unit in ("good.service", "good@1.service")}
    odd = b'{"v":1,"name":"odd.service","spec":"x","target":"exploded","generation":1,"incarnation":"a"}'
    of_another = (
        b'{"v":1,"name":"elsewhere.service","spec":"x","target":"launched","generation":1,"incarnation":"a"}'
    )
    text = next(key for key in await wishes(cluster) if keys.split(key)[0] == "specs")
    garbage = {
        keys.unit("garbage.service"): b"no json \xff\x00",
        keys.unit("odd.service"): odd,
        keys.unit("other-name.service"): of_another,
        f"{keys.PREFIX}units/no name!": b"{}",
        f"{keys.PREFIX}kinds/x": b"x",
        keys.placement(machine, "good.service"): b"garbage{",
        keys.placement(machine, "ghost.service"): b"garbage{",
        keys.placement("nowhere", "ghost.service"): b"garbage{",
        keys.state(machine, "good@1.service"): b"garbage{",
        keys.spec("0" * 64): b"not the text of this name",
        text: b"[Service]\nExecStart=/bin/false\n",
        keys.presence(machine): b"x",
        keys.presence("f" * 32): b"x",
        keys.roster(machine): b"x",
        keys.machine_spec(machine): b"x",
        keys.resources(machine): b"x",
        keys.CLUSTER: b"x",
        keys.BRAKE: b"x",
    }
    for key, value in garbage.items():
        await store.put(key, value)
    status = (await cluster.must("cluster", "status")).stdout
    for key in (f"{keys.PREFIX}units/no name!", f"{keys.PREFIX}kinds/x", keys.spec("0" * 64)):
        assert status.count(f"cannot read {key}: ") == 1, status
    unreadable = ("garbage.service", "odd.service", "other-name.service")
    listed = (await cluster.must("list-units")).stdout
    assert all(f"cannot read {keys.unit(unit)}: " in listed for unit in unreadable), listed
    rows = [row(f"start {unit}", FAILURE, f"cannot read {keys.unit(unit)}: ", "destroy") for unit in unreadable]
    rows.append(row("cat garbage.service", FAILURE, "cannot show the file of garbage.service: "))
    found = [fault for each in rows for fault in faults(each, await cluster.unitctl(*each.args))]
    assert not found, "\n".join(found)

    await cluster.must("destroy", *unreadable)
    cluster.write("fresh.service", SERVICE + "Environment=FRESH=1\n")
    await cluster.must("start", "fresh.service", "--timeout", "10s")
    assert (await cluster.machine_views())["m1"].status == "ready"
    # the same text submitted anew heals the one that was written over
    await cluster.must("submit", "--replace", "good.service", "good@.service")

    reported = keys.state(machine, "good@1.service")
    assert f"cannot read {reported}: " in (await cluster.must("list-units")).stdout
    cluster.restart_agent(cluster.machines[0])  # it reads its reports anew now and then, and when it begins

    async def healed() -> bool:
        return await cluster.runs_once("good.service", "good@1.service", "fresh.service")

    await cluster.wait_until(healed, SOON_S, "every unit is as wanted again")
    assert {unit: await cluster.running(unit) for unit in held} == held
    left = (await cluster.must("cluster", "status")).stdout
    for key in garbage:
        if f"cannot read {key}: " in left:
            await store.delete(key)
    assert "can't be read" not in (await cluster.must("cluster", "status")).stdout
    assert {unit: await cluster.running(unit) for unit in held} == held


@pytest.mark.parametrize("value", [b"poison", b"1", b"-7", b"9" * 40, None], ids=lambda value: str(value)[:12])
async def test_a_broken_epoch_counter_is_mended_and_stops_nothing(cluster: Cluster, value: bytes | None) -> None:
    held = await cluster.running("good@1.service")
    log = cluster.masters[0].log.stat().st_size
    if value is None:
        await cluster.store.delete(keys.EPOCH)
    else:
        await cluster.store.put(keys.EPOCH, value)
    await cluster.must("stop", "good.service", "--timeout", "10s")
    await cluster.must("start", "good.service", "--timeout", "10s")
    assert await cluster.running("good@1.service") == held
    said = cluster.masters[0].log.read_bytes()[log:].decode()
    assert said.count(f"wrote {keys.EPOCH} anew") == 1 and said.count("\n") < 20, said


async def test_a_leader_key_written_by_hand_does_not_stop_the_cluster(cluster: Cluster) -> None:
    await cluster.store.put(keys.LEADER, b"garbage")

    async def leads() -> bool:
        return (await cluster.status()).leader == "master1"

    await cluster.wait_until(leads, 2 * SOON_S, "a master leads again")
    await cluster.must("restart", "good.service", "--timeout", "10s")


# ------------------------------------------------------------------ the store away, or full


async def test_with_etcd_away_reads_are_marked_and_writes_refused(cluster: Cluster) -> None:
    held = await cluster.running("good.service")
    before = await wishes(cluster)
    member = cluster.etcd.members[0]
    member.kill()
    try:

        async def is_marked() -> bool:
            ran = await cluster.unitctl("list-units")
            assert ran.code == 0 and "good.service" in ran.stdout, ran
            return ran.stderr.count("warning: the store is silent: this is how it was ") == 1

        await cluster.wait_until(is_marked, 2 * SOON_S, "a read says that it is old")
        refused = row(
            "submit other.service", UNREACHABLE, "cannot write: the store has been silent", "what runs goes"
        )
        wrong = faults(refused, await cluster.unitctl(*refused.args))
        assert not wrong, wrong
        assert await cluster.running("good.service") == held
    finally:
        await cluster.etcd.start(member)
    await cluster.wait_until(lambda: cluster.runs_once("good.service"), 2 * SOON_S, "etcd is heard again")
    assert await wishes(cluster) == before
    assert await cluster.running("good.service") == held


async def test_a_full_etcd_refuses_writes_and_leaves_units_alone(cluster: Cluster) -> None:
    held = await cluster.running("good.service")

    async def is_full() -> bool:
        try:
            await cluster.store.put("/filling", bytes(1_000_000))
        except StoreFull:
            return True
        return False

    # etcd looks at its size when it writes to disk, ten times a second
    await eventually(is_full, within_s=SOON_S, what=lambda: "etcd is never full", every_s=0.1)
    full = ("cannot write: etcd is full (NOSPACE)", "etcdctl alarm disarm")
    rows = [
        row("submit other.service", FAILURE, *full),
        row("start other.service", FAILURE, *full),
        row("stop good.service", FAILURE, *full),
        row("destroy good.service good@1", FAILURE, *full),
        row("machines cordon m1", FAILURE, *full),
    ]
    await assert_refused(cluster, rows)
    assert await cluster.running("good.service") == held
    assert (await cluster.machine_views())["m1"].status == "ready"
