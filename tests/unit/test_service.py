"""The effective [Service] section."""

from __future__ import annotations

import pytest

from unitfleet import service, systemd
from unitfleet.names import split
from unitfleet.problems import Problem, Problems
from unitfleet.section import Section
from unitfleet.spec import Command, ExitStatus, KillMode, Limit, Restart, ServiceSpec, ServiceType
from unitfleet.specifiers import Specifiers


def read(
    lines: str, *, unit: str = "", name: str = "web@1.service", verify: bool = False
) -> tuple[ServiceSpec, list[Problem]]:
    problems = Problems()
    options = systemd.read(f"[Unit]\n{unit}\n[Service]\n{lines}\n", problems)
    specifiers = Specifiers(split(name), {"H": "node-a"})
    section = Section("Service", options, specifiers, problems)
    spec = service.read(section, Section("Unit", options, specifiers, problems))
    if verify:
        service.verify(section, spec)
        service.verify_restart(section, spec)
    return spec, problems.found


def good(lines: str, *, unit: str = "") -> ServiceSpec:
    spec, problems = read(lines, unit=unit)
    assert problems == []
    return spec


def start(line: str) -> Command:
    return good(f"ExecStart={line}").start[0]


def test_defaults_are_those_of_systemd() -> None:
    spec = good("ExecStart=/bin/x")
    assert spec.type is ServiceType.SIMPLE
    assert (spec.timeout_start_s, spec.timeout_stop_s) == (90.0, 90.0)
    assert (spec.kill_mode, spec.kill_signal, spec.send_sigkill) == (KillMode.CONTROL_GROUP, 15, True)
    assert (spec.restart.when, spec.restart.delay_s) == (Restart.NO, 0.1)
    assert (spec.restart.limit_interval_s, spec.restart.limit_burst) == (10.0, 5)


def test_a_command_is_its_words_with_quotes_and_specifiers_resolved_but_not_variables() -> None:
    command = start(r"""/bin/sh -c "echo %i \"$HOME\" %H" '%{code}' ${X}""")
    assert command.words == ("/bin/sh", "-c", 'echo 1 "$HOME" node-a', "%{code}", "${X}")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("-/bin/x", Command(words=("/bin/x",), ignore_failure=True)),
        ("@/bin/x name a", Command(words=("/bin/x", "a"), argv0="name")),
        (":/bin/x $A", Command(words=("/bin/x", "$A"), literal=True)),
        ("+/bin/x", Command(words=("/bin/x",), privileged=True)),
        ("!!/bin/x", Command(words=("/bin/x",), privileged=True)),
        ("-@:/bin/x n", Command(words=("/bin/x",), ignore_failure=True, argv0="n", literal=True)),
        ("x a", Command(words=("x", "a"))),
        (r"/bin/x a \; b", Command(words=("/bin/x", "a", ";", "b"))),
        ("/bin/x a;b", Command(words=("/bin/x", "a;b"))),
    ],
)
def test_prefixes_of_a_command(line: str, command: Command) -> None:
    assert start(line) == command


def test_a_bare_semicolon_begins_another_command() -> None:
    spec = good("Type=oneshot\nExecStart=/bin/a 1 ; -/bin/b 2")
    assert [command.words for command in spec.start] == [("/bin/a", "1"), ("/bin/b", "2")]
    assert [command.ignore_failure for command in spec.start] == [False, True]


def test_an_empty_assignment_drops_the_commands_before_it() -> None:
    spec = good("ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b")
    assert [command.words for command in spec.start] == [("/bin/b",)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("./run", "neither an absolute path"),
        ("- /bin/x", "names no program"),
        ("@/bin/x", "second word"),
        ("/bin/sh -c 'echo", "not closed"),
    ],
)
def test_a_command_that_can_not_be_read_is_a_problem_at_its_line(line: str, said: str) -> None:
    _, problems = read(f"Type=simple\nExecStart={line}")
    assert [problem.line for problem in problems] == [5]
    assert said in problems[0].message


def test_environment_is_quoted_pairs_and_the_last_of_a_name_counts() -> None:
    spec, problems = read('Environment="A=one two" B=%i\nEnvironment=A=2 junk')
    assert spec.environment == (("B", "1"), ("A", "2"))
    assert "'junk' is no assignment" in problems[0].message


def test_an_environment_file_may_be_missing_when_it_has_a_dash() -> None:
    spec = good("EnvironmentFile=/etc/a\nEnvironmentFile=-/etc/b-%i")
    assert spec.environment_files == (("/etc/a", False), ("/etc/b-1", True))


@pytest.mark.parametrize(
    ("lines", "start_s", "stop_s"),
    [
        ("ExecStart=/x\nTimeoutStartSec=0", None, 90.0),
        ("ExecStart=/x\nTimeoutStopSec=0", 90.0, None),
        ("ExecStart=/x\nTimeoutSec=20min", 1200.0, 1200.0),
        ("ExecStart=/x\nTimeoutSec=infinity\nTimeoutStopSec=5", None, 5.0),
        ("ExecStart=/x\nTimeoutStopSec=5\nTimeoutSec=7", 7.0, 7.0),
        ("Type=oneshot\nExecStart=/x", None, 90.0),
        ("Type=oneshot\nExecStart=/x\nTimeoutStartSec=5", 5.0, 90.0),
    ],
)
def test_timeouts(lines: str, start_s: float | None, stop_s: float | None) -> None:
    spec = good(lines)
    assert (spec.timeout_start_s, spec.timeout_stop_s) == (start_s, stop_s)


def test_start_limits_may_stand_in_either_section_and_the_last_line_counts() -> None:
    spec = good("StartLimitInterval=1min\nStartLimitBurst=3", unit="StartLimitIntervalSec=5\nStartLimitBurst=9")
    assert (spec.restart.limit_interval_s, spec.restart.limit_burst) == (60.0, 3)
    assert good("", unit="StartLimitIntervalSec=0").restart.limit_burst == 0


def test_restart_and_its_exit_statuses() -> None:
    policy = good(
        "Restart=on-failure\nRestartSec=1min\nSuccessExitStatus=143 SIGKILL\n"
        "RestartPreventExitStatus=1 2\nRestartPreventExitStatus=\nRestartPreventExitStatus=TEMPFAIL\n"
        "RestartForceExitStatus=SIGHUP"
    ).restart
    assert (policy.when, policy.delay_s) == (Restart.ON_FAILURE, 60.0)
    assert policy.success == ExitStatus(codes=(143,), signals=("SIGKILL",))
    assert policy.prevent == ExitStatus(codes=(75,))
    assert policy.force == ExitStatus(signals=("SIGHUP",))


def test_the_other_values() -> None:
    spec = good(
        "WorkingDirectory=-/srv/%p\nUser=app\nGroup=www\nKillMode=mixed\nKillSignal=SIGINT\nSendSIGKILL=no\n"
        "RemainAfterExit=yes\nNotifyAccess=all\nLimitNOFILE=10:20\nLimitCORE=infinity"
    )
    assert (spec.working_directory, spec.working_directory_optional) == ("/srv/web", True)
    assert (spec.user, spec.group) == ("app", "www")
    assert (spec.kill_mode, spec.kill_signal, spec.send_sigkill) == (KillMode.MIXED, 2, False)
    assert spec.remain_after_exit and spec.notify_access_all
    assert dict(spec.limits) == {"NOFILE": Limit(soft=10, hard=20), "CORE": Limit(soft=None, hard=None)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Restart=alway", "did you mean always?"),
        ("Type=oneshoot", "did you mean oneshot?"),
        ("KillSignal=SIGTREM", "did you mean SIGTERM?"),
        ("TimeoutStartSec=soon", "no time span"),
        ("RestartSec=infinity", "no time span"),
        ("LimitNOFILE=2:1", "soft limit above"),
        ("WorkingDirectory=srv", "no absolute path"),
        ("EnvironmentFile=../x", "no absolute path"),
        ("RemainAfterExit=perhaps", "yes or no"),
        ("NotifyAccess=some", "none, main, exec, all"),
        ("SuccessExitStatus=999", "0 to 255"),
        ("StartLimitBurst=-1", "whole number"),
    ],
)
def test_a_bad_value_says_what_is_allowed(line: str, said: str) -> None:
    _, problems = read(f"ExecStart=/x\n{line}")
    assert [problem.line for problem in problems] == [5]
    assert said in problems[0].message


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("User=a", "neither ExecStart= nor ExecStop="),
        ("Type=simple\nExecStop=/x", "has no ExecStart="),
        ("Type=oneshot\nExecStop=/x", "has no ExecStart="),
        ("ExecStart=/a\nExecStart=/b", "2 ExecStart="),
        ("Type=oneshot\nExecStart=/a\nRestart=always", "Restart=always does not go"),
    ],
)
def test_what_systemd_refuses_as_a_whole_is_refused(lines: str, said: str) -> None:
    _, problems = read(lines, verify=True)
    assert [said in problem.message for problem in problems] == [True]


@pytest.mark.parametrize(
    "lines",
    [
        "Type=oneshot\nExecStart=/a\nExecStart=/b",
        "Type=oneshot\nExecStart=/a\nRestart=on-failure",
        "ExecStop=/x\nRemainAfterExit=yes",
    ],
)
def test_what_systemd_takes_as_a_whole_is_taken(lines: str) -> None:
    assert read(lines, verify=True)[1] == []
