"""What systemd promises of a `[Service]`, kept by the process driver: commands, Type=, environment, users."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from contract.driver_rig import DEADLINE_S, ProcessRig, find, is_root, service_order, shell, until
from functional.process_units import SLEEP, UNIT, needs_root, oneshot, output, ran, up
from unit_agent.drivers.supervisor_link import connect
from unit_agent.drivers.unit_directory import UnitDirectory
from unitfleet.errors import DriverError
from unitfleet.model import CopyPhase
from unitfleet.spec import (
    Command,
    ContainerSpec,
    ExitStatus,
    Limit,
    Restart,
    RestartPolicy,
    ServiceSpec,
    ServiceType,
    UnitSpec,
)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ProcessRig]:
    async with ProcessRig(tmp_path) as made:
        yield made


# Starting.


async def test_commands_run_in_order_and_a_minus_forgives(rig: ProcessRig) -> None:
    service = ServiceSpec(
        type=ServiceType.ONESHOT,
        start_pre=(Command(words=("/bin/false",), ignore_failure=True), *shell("echo pre")),
        start=(*shell("echo one"), *shell("echo two")),
        start_post=shell("echo post"),
        stop_post=shell("echo stop-post"),
    )
    assert await ran(rig, service) == ["pre", "one", "two", "post", "stop-post"]


async def test_a_failing_start_pre_fails_the_unit_by_name(rig: ProcessRig) -> None:
    service = ServiceSpec(start_pre=shell("exit 4"), start=shell("echo never"))
    driver, copy = await up(rig, service)
    assert copy.phase is CopyPhase.FAILED
    assert "ExecStartPre" in copy.message
    assert "4" in copy.message
    assert await output(driver) == []


async def test_a_start_that_takes_too_long_fails(rig: ProcessRig) -> None:
    _, copy = await up(rig, ServiceSpec(start_pre=SLEEP, start=SLEEP, timeout_start_s=0.2))
    assert copy.phase is CopyPhase.FAILED
    assert "0.2 s" in copy.message
    assert not await rig.processes(UNIT)


async def test_remain_after_exit_stays_active_until_stopped(rig: ProcessRig) -> None:
    service = oneshot("echo up", remain_after_exit=True, stop=shell("echo down"))
    driver, copy = await up(rig, service)
    assert (copy.phase, copy.active, copy.sub, copy.pid) == (CopyPhase.RUNNING, "active", "exited", 0)
    await driver.stop(UNIT)
    assert await output(driver) == ["up", "down"]


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (
            ServiceSpec(start=(Command(words=("/does/not/exist",)),)),
            "cannot execute /does/not/exist: No such file",
        ),
        (ServiceSpec(start=(Command(words=("/etc/passwd",)),)), "cannot execute /etc/passwd: Permission denied"),
        (
            ServiceSpec(start=(Command(words=("no-such-program",)),)),
            "cannot execute no-such-program: it is not in",
        ),
        (ServiceSpec(start=SLEEP, working_directory="/does/not/exist"), "cannot enter WorkingDirectory="),
        (ServiceSpec(start=SLEEP, environment_files=(("/does/not/exist", False),)), "EnvironmentFile=/does/not"),
        pytest.param(ServiceSpec(start=SLEEP, user="no-such-user"), "User=no-such-user", marks=needs_root),
        pytest.param(ServiceSpec(start=SLEEP, group="no-such-group"), "Group=no-such-group", marks=needs_root),
    ],
)
async def test_a_failed_start_says_what_could_not_be_done(
    rig: ProcessRig, service: ServiceSpec, message: str
) -> None:
    _, copy = await up(rig, service)
    assert copy.phase is CopyPhase.FAILED
    assert message in copy.message


async def test_a_script_whose_interpreter_is_missing_says_so(rig: ProcessRig, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/does/not/exist\n")
    script.chmod(0o755)
    _, copy = await up(rig, ServiceSpec(start=(Command(words=(str(script),)),)))
    assert "interpreter" in copy.message


async def test_systemds_code_of_a_failed_exec_can_be_prevented_from_restarting(rig: ProcessRig) -> None:
    policy = RestartPolicy(when=Restart.ALWAYS, delay_s=600.0, prevent=ExitStatus(codes=(203,)))
    _, copy = await up(rig, ServiceSpec(start=(Command(words=("/does/not/exist",)),), restart=policy))
    assert copy.phase is CopyPhase.FAILED


# Notify.

NOTIFY = """
import os, socket, sys, time
def say(text):
    address = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), address)
"""


def python(code: str) -> tuple[Command, ...]:
    return (Command(words=(sys.executable, "-I", "-S", "-c", NOTIFY + textwrap.dedent(code)), literal=True),)


async def test_notify_is_active_once_it_says_ready(rig: ProcessRig) -> None:
    code = "time.sleep(0.3); print('said', flush=True); say('READY=1\\nSTATUS=serving 8 sites'); time.sleep(1000)"
    driver, copy = await up(rig, ServiceSpec(type=ServiceType.NOTIFY, start=python(code)))
    assert copy.phase is CopyPhase.RUNNING
    assert await output(driver) == ["said"]
    assert (await until(driver, UNIT, lambda copy: bool(copy.message))).message == "serving 8 sites"


async def test_notify_that_ends_or_stays_silent_has_failed(rig: ProcessRig) -> None:
    _, copy = await up(rig, ServiceSpec(type=ServiceType.NOTIFY, start=python("pass")))
    assert copy.phase is CopyPhase.FAILED
    assert "READY=1" in copy.message


async def test_notify_that_stays_silent_has_failed(rig: ProcessRig) -> None:
    _, copy = await up(rig, ServiceSpec(type=ServiceType.NOTIFY, start=SLEEP, timeout_start_s=0.3))
    assert copy.phase is CopyPhase.FAILED
    assert not await rig.processes(UNIT)


@pytest.mark.parametrize("everybody", [True, False])
async def test_only_the_main_process_is_heard_unless_all_are(rig: ProcessRig, everybody: bool) -> None:
    code = "os.fork() or (say('READY=1'), time.sleep(0.5), os._exit(0)); time.sleep(1000)"
    service = ServiceSpec(
        type=ServiceType.NOTIFY, start=python(code), notify_access_all=everybody, timeout_start_s=2.0
    )
    _, copy = await up(rig, service)
    assert copy.phase is (CopyPhase.RUNNING if everybody else CopyPhase.FAILED)


async def test_a_main_pid_that_was_announced_is_the_main_process(rig: ProcessRig) -> None:
    code = """
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        say(f"READY=1\\nMAINPID={child}")
        time.sleep(1000)
    """
    driver, _ = await up(rig, ServiceSpec(type=ServiceType.NOTIFY, start=python(code)))
    copy = await until(driver, UNIT, lambda copy: copy.phase is CopyPhase.RUNNING)
    assert psutil.Process(copy.pid).parent() in rig._marked(UNIT)
    psutil.Process(copy.pid).kill()
    await until(driver, UNIT, lambda copy: not copy.executing)
    assert not await rig.processes(UNIT)


# The environment, words, users, limits.


async def test_units_know_who_they_are_and_nothing_of_the_agent(rig: ProcessRig) -> None:
    os.environ["AGENT_SECRET"] = "x"
    try:
        lines = await ran(rig, oneshot("env"))
    finally:
        del os.environ["AGENT_SECRET"]
    for line in (f"UNITFLEET_UNIT={UNIT}", "UNITFLEET_MACHINE=m1", "UNITFLEET_EPOCH=1"):
        assert line in lines
    assert not any(line.startswith("AGENT_SECRET") for line in lines)


async def test_environment_files_are_read_as_systemd_reads_them(rig: ProcessRig, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(
        '# comment \\\ncarried on\n; other\nPLAIN=one two  \nQUOTED="a \\"b\\" \\x" \nSINGLE=\'x\\y\'\n'
        "LONG=one \\\n two\nnot an assignment\nBAD NAME=1\nOVER=first\nEMPTY=\n  INDENTED = yes\n"
    )
    second.write_text("OVER=second\n")
    names = "PLAIN QUOTED SINGLE LONG OVER EMPTY INDENTED UNIT_SET"
    script = f'for n in {names}; do eval "printf \'%s=[%s]\\n\' $n \\"\\$$n\\""; done; env | grep -c BAD'
    lines = await ran(
        rig,
        oneshot(
            script + "; :",
            environment=(("OVER", "unit"), ("UNIT_SET", "unit")),
            environment_files=((str(first), False), (str(tmp_path / "absent"), True), (str(second), False)),
        ),
    )
    assert lines == [
        "PLAIN=[one two]",
        'QUOTED=[a "b" \\x]',
        "SINGLE=[x\\y]",
        "LONG=[one  two]",
        "OVER=[second]",
        "EMPTY=[]",
        "INDENTED=[yes]",
        "UNIT_SET=[unit]",
        "0",
    ]


async def test_variables_are_expanded_as_systemd_does(rig: ProcessRig) -> None:
    words = (
        "/usr/bin/printf",
        "[%s]\\n",
        "${TWO}",
        "$TWO",
        "a${TWO}b",
        "a$TWO",
        "$$TWO",
        "$UNSET",
        "${UNSET}",
        "$",
    )
    service = ServiceSpec(
        type=ServiceType.ONESHOT,
        start=(Command(words=words), Command(words=("/usr/bin/printf", "%s\\n", "${TWO}"), literal=True)),
        environment=(("TWO", "'one 1'  two"),),
    )
    assert await ran(rig, service) == [
        "['one 1'  two]",
        "[one 1]",
        "[two]",
        "[a'one 1'  twob]",
        "[a$TWO]",
        "[$TWO]",
        "[]",
        "[$]",
        "${TWO}",
    ]


async def test_argv0_directory_and_limits_are_set(rig: ProcessRig, tmp_path: Path) -> None:
    service = ServiceSpec(
        type=ServiceType.ONESHOT,
        start=(
            Command(words=("/bin/sh", "-c", 'echo "$0"; pwd; ulimit -Sn; ulimit -Hn; ulimit -c'), literal=True),
            Command(words=("/bin/sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline"), literal=True, argv0="renamed"),
        ),
        working_directory=str(tmp_path),
        limits=(("NOFILE", Limit(soft=100, hard=200)), ("CORE", Limit(soft=0, hard=0))),
    )
    lines = await ran(rig, service)
    assert lines[1:5] == [str(tmp_path), "100", "200", "0"]
    assert lines[5].startswith("renamed -c")


async def test_a_missing_directory_is_fine_when_optional(rig: ProcessRig) -> None:
    service = oneshot("pwd", working_directory="/does/not/exist", working_directory_optional=True)
    assert await ran(rig, service) == ["/"]


@needs_root
async def test_user_and_group_are_switched_and_a_plus_is_not(rig: ProcessRig) -> None:
    script = 'id -un; id -gn; id -G; echo "$USER $LOGNAME $HOME"; echo through > /dev/stderr'
    command = shell(script)[0]
    service = ServiceSpec(
        type=ServiceType.ONESHOT,
        start=(command, Command(words=("/usr/bin/id", "-un"), privileged=True)),
        user="nobody",
    )
    lines = await ran(rig, service)
    assert lines[0] == "nobody"
    assert lines[2] == "65534"
    assert lines[3].startswith("nobody nobody ")
    assert sorted(lines[4:]) == ["root", "through"]


@pytest.mark.skipif(is_root(), reason="for an ordinary user")
async def test_another_user_is_refused_by_name_without_root(rig: ProcessRig) -> None:
    with pytest.raises(DriverError, match="User=root needs an agent that runs as root"):
        await rig.driver().create(rig.service(UNIT, ServiceSpec(start=SLEEP, user="root")))
    copy = await rig.driver().create(rig.service(UNIT, ServiceSpec(start=SLEEP, user=getpass.getuser())))
    assert copy.phase is CopyPhase.LOADED


@pytest.mark.parametrize(
    ("unit", "service", "reason"),
    [
        ("backup.timer", ServiceSpec(start=SLEEP), "only systemd runs a .timer unit"),
        ("a.service", ServiceSpec(), "no ExecStart="),
        ("a.service", ServiceSpec(start=SLEEP * 2), "Type=oneshot"),
        ("a.service", ServiceSpec(start=SLEEP, limits=(("NICENESS", Limit(soft=1, hard=1)),)), "LimitNICENESS="),
    ],
)
async def test_what_this_driver_cannot_run_is_refused_by_name(
    rig: ProcessRig, unit: str, service: ServiceSpec, reason: str
) -> None:
    with pytest.raises(DriverError, match=reason):
        await rig.driver().create(service_order(unit, service))
    assert list(await rig.driver().list()) == []


async def test_a_container_unit_is_refused(rig: ProcessRig) -> None:
    order = service_order(UNIT, ServiceSpec(start=SLEEP))
    spec = UnitSpec(
        name=UNIT,
        description="",
        requirements=order.spec.requirements,
        service=order.spec.service,
        container=ContainerSpec(image="x"),
    )
    with pytest.raises(DriverError, match="docker driver"):
        await rig.driver().create(type(order)(order.placement, spec))


# Reload.


async def test_reload_runs_its_commands_and_restarts_nothing(rig: ProcessRig) -> None:
    service = ServiceSpec(start=SLEEP, reload=shell('echo "reloaded $MAINPID"'))
    driver, copy = await up(rig, service)
    link = await connect(UnitDirectory(rig.root / "units" / copy.id), lambda: None)
    assert link is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert await link.ask("reload") == ""
            assert "no such command" in await link.ask("dance")
    finally:
        link.close()
    assert await output(driver) == [f"reloaded {copy.pid}"]
    after = await find(driver, UNIT)
    assert after is not None
    assert (after.pid, after.sub) == (copy.pid, "running")
