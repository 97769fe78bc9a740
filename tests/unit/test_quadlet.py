"""The effective [Container] section."""

from __future__ import annotations

import pytest

from unitfleet import quadlet, service, systemd
from unitfleet.command import swallowing_shell
from unitfleet.names import split
from unitfleet.problems import Problem, Problems, Severity
from unitfleet.section import Section
from unitfleet.spec import ContainerSpec, HealthSpec, Limit, MountSpec, PortSpec, Pull
from unitfleet.specifiers import Specifiers


def read(lines: str, *, run: str = "") -> tuple[ContainerSpec, list[Problem]]:
    problems = Problems()
    options = systemd.read(f"[Container]\nImage=busybox:1\n{lines}\n[Service]\n{run}\n", problems)
    specifiers = Specifiers(split("web@1.service"))
    effective = service.read(
        Section("Service", options, specifiers, problems), Section("Unit", (), specifiers, problems)
    )
    return quadlet.read(Section("Container", options, specifiers, problems), effective), problems.found


def good(lines: str, *, run: str = "") -> ContainerSpec:
    spec, problems = read(lines, run=run)
    assert problems == []
    return spec


def test_single_values_take_the_last_assignment_and_lists_keep_their_order() -> None:
    spec = good("HostName=a\nHostName=b\nDNS=1.1.1.1\nDNS=::1\nPull=never\nPull=newer")
    assert (spec.hostname, spec.dns, spec.pull) == ("b", ("1.1.1.1", "::1"), Pull.NEWER)


def test_an_empty_assignment_resets() -> None:
    spec = good("DNS=1.1.1.1\nDNS=\nDNS=9.9.9.9\nHostName=a\nHostName=")
    assert (spec.dns, spec.hostname) == (("9.9.9.9",), "")


def test_exec_is_words_with_specifiers_and_the_containers_own_variables() -> None:
    spec = good("Exec=serve --name %i '--motd=a b' $${HOME} $PATH")
    assert spec.exec == ("serve", "--name", "1", "--motd=a b", "${HOME}", "$PATH")


@pytest.mark.parametrize(
    ("line", "entrypoint"),
    [
        ("DNS=", None),
        ("Entrypoint=", ()),
        ("Entrypoint=/bin/x --y", ("/bin/x", "--y")),
        ('Entrypoint=["/bin/x", "a b"]', ("/bin/x", "a b")),
        ("Entrypoint=/bin/x\nEntrypoint=", ()),
    ],
)
def test_the_entrypoint_is_the_images_own_unless_said_and_may_be_cleared(
    line: str, entrypoint: tuple[str, ...] | None
) -> None:
    assert good(line).entrypoint == entrypoint


@pytest.mark.parametrize(
    ("line", "ports"),
    [
        ("80", [PortSpec(container=80)]),
        ("8080:80", [PortSpec(container=80, host=8080)]),
        ("127.0.0.1:8080:80/udp", [PortSpec(container=80, host=8080, address="127.0.0.1", protocol="udp")]),
        ("127.0.0.1::80", [PortSpec(container=80, address="127.0.0.1")]),
        ("[::1]:8080:80", [PortSpec(container=80, host=8080, address="::1")]),
        ("0.0.0.0:8080:80", [PortSpec(container=80, host=8080)]),
        ("808%i:80", [PortSpec(container=80, host=8081)]),
        ("8000-8001:90-91", [PortSpec(container=90, host=8000), PortSpec(container=91, host=8001)]),
        ("80-81", [PortSpec(container=80), PortSpec(container=81)]),
    ],
)
def test_ports(line: str, ports: list[PortSpec]) -> None:
    assert list(good(f"PublishPort={line}").ports) == ports


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        ("Volume=/a:/b", MountSpec(kind="bind", source="/a", target="/b")),
        ("Volume=/a:/b:ro,z", MountSpec(kind="bind", source="/a", target="/b", read_only=True, options=("z",))),
        ("Volume=data-%i:/b", MountSpec(kind="volume", source="data-1", target="/b")),
        ("Volume=/b", MountSpec(kind="volume", target="/b")),
        ("Tmpfs=/t", MountSpec(kind="tmpfs", target="/t")),
        ("Tmpfs=/t:size=5m,mode=1777", MountSpec(kind="tmpfs", target="/t", options=("size=5m", "mode=1777"))),
        (
            "Mount=type=bind,source=/a,destination=/b,ro",
            MountSpec(kind="bind", source="/a", target="/b", read_only=True),
        ),
        ("Mount=type=volume,src=v1,dst=/b,ro=false", MountSpec(kind="volume", source="v1", target="/b")),
        (
            "Mount=type=tmpfs,target=/b,tmpfs-size=1m",
            MountSpec(kind="tmpfs", target="/b", options=("size=1048576",)),
        ),
    ],
)
def test_mounts(line: str, mount: MountSpec) -> None:
    assert good(line).mounts == (mount,)


@pytest.mark.parametrize(
    ("line", "test"),
    [
        ("curl -f http://localhost || exit 1", ("CMD-SHELL", "curl -f http://localhost || exit 1")),
        ("CMD-SHELL curl x", ("CMD-SHELL", "curl x")),
        ("CMD /probe -v", ("CMD", "/probe", "-v")),
        ('["CMD", "/probe"]', ("CMD", "/probe")),
        ('["/probe", "a b"]', ("CMD", "/probe", "a b")),
        ("none", ("NONE",)),
    ],
)
def test_the_health_command_is_read_as_podman_reads_it(line: str, test: tuple[str, ...]) -> None:
    health = good(f"HealthCmd={line}").health
    assert health is not None and health.test == test


def test_health_figures_have_the_engines_defaults() -> None:
    assert good("").health is None
    assert good("HealthCmd=x\nHealthInterval=1m30s\nHealthRetries=5\nHealthStartPeriod=90s").health == HealthSpec(
        test=("CMD-SHELL", "x"), interval_s=90.0, retries=5, start_period_s=90.0
    )


def test_the_other_keys() -> None:
    spec = good(
        'Environment=A=1 "B=b c"\nEnvironmentFile=-/etc/x.env\nNetwork=host\nMemory=512m\nShmSize=1g\n'
        "Ulimit=nofile=10:20\nUlimit=core=-1\nUser=1000\nGroup=100\nWorkingDir=/srv\nLabel=a=b\n"
        "AddCapability=net_admin CAP_CHOWN\nDropCapability=all\nAddDevice=-/dev/a:/dev/b:r\nAddHost=db:10.0.0.1\n"
        "ReadOnly=yes\nRunInit=true\nStopSignal=quit\nStopTimeout=70\nPidsLimit=100\nLogDriver=local\n"
        "LogOpt=max-size=1m\nNotify=healthy\nHealthCmd=true\nContainerName=web-%i"
    )
    assert spec.environment == (("A", "1"), ("B", "b c"))
    assert spec.environment_files == (("/etc/x.env", True),)
    assert (spec.networks, spec.memory, spec.shm_size) == (("host",), 512 << 20, 1 << 30)
    assert dict(spec.ulimits) == {"nofile": Limit(soft=10, hard=20), "core": Limit(soft=None, hard=None)}
    assert (spec.user, spec.working_dir, spec.labels) == ("1000:100", "/srv", (("a", "b"),))
    assert spec.add_capabilities == ("CAP_NET_ADMIN", "CAP_CHOWN")
    assert spec.drop_capabilities == ("ALL",)
    assert spec.devices == (("/dev/a", "/dev/b", "r", True),)
    assert spec.add_hosts == ("db:10.0.0.1",)
    assert spec.read_only and spec.run_init and spec.notify_healthy
    assert (spec.stop_signal, spec.stop_timeout_s, spec.pids_limit) == ("SIGQUIT", 70.0, 100)
    assert (spec.log_driver, spec.log_options) == ("local", (("max-size", "1m"),))
    assert spec.container_name == "web-1"


def test_the_limit_of_open_files_of_the_service_is_the_containers() -> None:
    assert dict(good("", run="LimitNOFILE=5").ulimits) == {"nofile": Limit(soft=5, hard=5)}
    assert dict(good("Ulimit=nofile=7", run="LimitNOFILE=5").ulimits) == {"nofile": Limit(soft=7, hard=7)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Image=", "no Image="),
        ("Image=Bad Image", "no image reference"),
        ("Image=x.image", "another Quadlet file"),
        ("Group=100", "Group= without User="),
        ("PublishPort=70000", "from 1 to 65535"),
        ("PublishPort=http", "is no port"),
        ("PublishPort=80/sctp", "is no port"),
        ("PublishPort=1-2:3", "different lengths"),
        ("PublishPort=1-1000", "more than 100"),
        ("PublishPort=1.2.3:80:80", "no IP address"),
        ("Volume=./x:/y", "relative"),
        ("Volume=x.volume:/y", "another Quadlet file"),
        ("Volume=/x:y", "no absolute path"),
        ("Volume=/x:/y:rq", "unknown option"),
        ("Mount=type=glob,target=/x", "none of bind, volume, tmpfs"),
        ("Mount=type=bind,target=/x", "no absolute path"),
        ("Mount=type=bind,source=/a,targt=/x", "did you mean target?"),
        ("Tmpfs=/x\nVolume=/x", "two mounts at /x"),
        ("Network=a.network", "another Quadlet file"),
        ("Network=host\nNetwork=back", "no other network"),
        ("Memory=1", "at least 6m"),
        ("Memory=lots", "is no size"),
        ("Ulimit=files=1", "is no limit"),
        ("AddCapability=n!", "is no capability"),
        ("AddDevice=/dev/a:q", "is no device"),
        ("AddHost=db", "is no host entry"),
        ("DNS=here", "no IP address"),
        ("ReadOnly=perhaps", "yes or no"),
        ("StopSignal=SIGTREM", "did you mean SIGTERM?"),
        ("Pull=alway", "did you mean always?"),
        ("Notify=yes", "write healthy"),
        ("ContainerName=-x", "no container name"),
        ("LogDriver=k8s-file", "no log driver"),
        ("HealthRetries=0", "whole number from 1"),
        ("HealthCmd=[1]", "no list of words"),
        ("HostName=-a", "no host name"),
        ("PidsLimit=many", "whole number"),
    ],
)
def test_a_bad_value_says_what_is_allowed(line: str, said: str) -> None:
    _, problems = read(line)
    assert [said in problem.message for problem in problems] == [True]


def test_a_label_that_is_no_pair_is_left_out_with_a_warning() -> None:
    spec, problems = read("Label=a=one two")
    assert spec.labels == (("a", "one"),)
    assert "'two' is no assignment" in problems[0].message


@pytest.mark.parametrize(
    ("words", "shell"),
    [
        (["/bin/sh", "-c", "while true; do sleep 1; done"], "/bin/sh -c"),
        (["bash", "-lc", "server"], "bash -lc"),
        (["busybox", "sh", "-c", "server"], "sh -c"),
        (["sh", "-e", "-c", "server"], "sh -c"),
        (["sh", "-c", "exec server"], None),
        (["sh", "-c", "prepare && exec server"], None),
        (["sh", "-c", "trap 'exit 0' TERM; server"], None),
        (["sh", "script.sh"], None),
        (["server", "-c", "x"], None),
        ([], None),
    ],
)
def test_a_shell_that_swallows_the_stop_signal_is_seen(words: list[str], shell: str | None) -> None:
    assert swallowing_shell(words) == shell


def test_a_shell_as_process_1_is_named_unless_an_init_stands_before_it() -> None:
    _, problems = read("Exec=sh -c 'server'")
    assert "'sh -c' is process 1" in problems[0].message
    assert read("Exec=sh -c 'server'\nRunInit=yes")[1] == []
    assert "'bash -c'" in read('Entrypoint=["bash","-c"]\nExec=server')[1][0].message


def test_waiting_for_health_without_a_check_is_warned_of_for_the_image_may_have_one() -> None:
    spec, problems = read("Notify=healthy")
    assert spec.notify_healthy
    assert [problem.severity for problem in problems] == [Severity.WARNING]
    assert "the image's own health check" in problems[0].message
    assert read("Notify=healthy\nHealthCmd=true")[1] == []
    assert len(read("Notify=healthy\nHealthInterval=5s")[1]) == 1
