"""All 94 keys of Quadlet's `[Container]`: each is read, warned of or refused, and none is passed over."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harness import quadlet_table
from unitfleet import accept, podman_args, quadlet_keys, quadlet_more, systemd
from unitfleet.names import split
from unitfleet.options import XFLEET_KEYS
from unitfleet.problems import Problem, Problems, Severity
from unitfleet.quadlet_keys import CONTAINER, UNENFORCED, Handling
from unitfleet.section import Section
from unitfleet.spec import HealthAction, HealthSpec, StartupProbe
from unitfleet.specifiers import Specifiers
from unitfleet.unitfile import Option

# A value that each emulated or direct key takes, and the field of the spec it comes to.
READ: list[tuple[str, str, Any]] = [
    ("Annotation=a=b 'c=d e'", "annotations", (("a", "b"), ("c", "d e"))),
    ("AppArmor=unconfined", "apparmor", "unconfined"),
    ("AutoUpdate=registry", "auto_update", "registry"),
    ("DNSOption=ndots:1", "dns_options", ("ndots:1",)),
    ("DNSSearch=example.org", "dns_search", ("example.org",)),
    ("EnvironmentHost=yes", "environment_host", True),
    ("ExposeHostPort=80\nExposeHostPort=2000-3000/udp", "exposed", ("80/tcp", "2000-3000/udp")),
    ("GroupAdd=wheel\nGroupAdd=7", "group_add", ("wheel", "7")),
    ("HttpProxy=no", "http_proxy", False),
    ("", "http_proxy", None),
    ("Network=back\nIP=10.0.0.2", "ip", "10.0.0.2"),
    ("Network=back\nIP6=fd00::2", "ip6", "fd00::2"),
    ("Network=back\nNetworkAlias=db", "network_aliases", ("db",)),
    ("Mask=/proc/a:/proc/b /proc/c", "masked", ("/proc/a", "/proc/b", "/proc/c")),
    ("Unmask=ALL", "unmasked", ("ALL",)),
    ("NoNewPrivileges=yes", "no_new_privileges", True),
    ("Pod=site.pod", "pod", "site"),
    ("StartWithPod=no", "start_with_pod", False),
    ("ReadOnlyTmpfs=no", "read_only_tmpfs", False),
    ("", "read_only_tmpfs", None),
    ("ReloadCmd=nginx -s 'reload now'", "reload_command", ("nginx", "-s", "reload now")),
    ("ReloadSignal=HUP", "reload_signal", "SIGHUP"),
    ("Retry=5", "pull_retries", 5),
    ("RetryDelay=10s", "pull_retry_delay_s", 10.0),
    ("SeccompProfile=/etc/seccomp.json", "seccomp_profile", "/etc/seccomp.json"),
    ("SecurityLabelDisable=yes\nSecurityLabelLevel=s0:c1", "security_labels", ("disable", "level:s0:c1")),
    ("SecurityLabelType=t", "security_labels", ("type:t",)),
    ("ServiceName=web-%i", "service_name", "web-1"),
    ("Sysctl=a.b=1024 c.d.e=1", "sysctls", (("a.b", "1024"), ("c.d.e", "1"))),
    ("Timezone=Europe/Vienna", "timezone", "Europe/Vienna"),
]


def section(lines: str) -> Section:
    problems = Problems()
    options = systemd.read(f"[Container]\n{lines}\n", problems)
    return Section("Container", options, Specifiers(split("web@1.service")), problems)


def problems_of(lines: str, image: str = "Image=busybox:1") -> list[Problem]:
    return accept.examine("web.service", f"[Container]\n{image}\n{lines}\n")[1]


def test_the_table_has_every_key_in_its_class() -> None:
    assert Counter(str(key.handling) for key in CONTAINER.values()) == {
        "direct": 53,
        "emulated": 25,
        "limited": 7,
        "impossible": 9,
    }
    assert {key.partition("=")[0] for key in UNENFORCED} <= set(CONTAINER)


@pytest.mark.parametrize(("lines", "field", "value"), READ)
def test_a_key_is_read_into_its_field(lines: str, field: str, value: Any) -> None:
    read = section(lines)
    assert quadlet_more.read(read)[field] == value
    assert read.problems.found == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("GroupAdd=keep-groups", "podman's alone"),
        ("Sysctl=somaxconn=1", "net.core.somaxconn=1024"),
        ("AppArmor=a b", "no profile's name"),
        ("SeccompProfile=x.json", "no absolute path"),
        ("SecurityLabelType=a b", "SELinux label"),
        ("Mask=proc", "no absolute path"),
        ("ExposeHostPort=0", "no port"),
        ("ExposeHostPort=9-8", "no port"),
        ("Network=back\nIP=fd00::2", "no IPv4 address"),
        ("Network=back\nIP6=here", "no IP address"),
        ("IP=10.0.0.2", "needs a network of its own"),
        ("Network=host\nNetworkAlias=db", "needs a network of its own"),
        ("Network=a\nNetwork=b\nIP=10.0.0.2", "with 2 networks"),
        ("DNSSearch=a b", "no single word"),
        ("Pod=site", "write name.pod"),
        ("Timezone=../etc", "no time zone"),
        ("AutoUpdate=always", "none of registry, local"),
        ("ServiceName=a/b", "can't name a unit"),
        ("ReloadSignal=HPU", "did you mean"),
        ("ReloadCmd=a\nReloadSignal=HUP", "exclude each other"),
        ("Retry=many", "no whole number"),
    ],
)
def test_a_bad_value_says_what_is_allowed(lines: str, said: str) -> None:
    read = section(lines)
    quadlet_more.read(read)
    assert [said in problem.message for problem in read.problems.found] == [True], read.problems.found


def test_what_follows_from_health_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quadlet_keys, "UNENFORCED", frozenset())
    lines = (
        "HealthCmd=true\nHealthOnFailure=restart\nHealthStartupCmd=CMD /up\nHealthStartupRetries=5\n"
        "HealthStartupInterval=2s\nHealthLogDestination=/var/log/x\nHealthMaxLogCount=0\nHealthMaxLogSize=9"
    )
    spec, found = accept.examine("web.service", f"[Container]\nImage=busybox:1\n{lines}\n")
    assert found == []
    assert spec is not None and spec.container is not None
    assert spec.container.health == HealthSpec(
        test=("CMD-SHELL", "true"),
        on_failure=HealthAction.RESTART,
        startup=StartupProbe(test=("CMD", "/up"), interval_s=2.0, retries=5),
        log_destination="/var/log/x",
        max_log_count=0,
        max_log_size=9,
    )
    assert "HealthStartupCmd= without HealthCmd=" in problems_of("HealthStartupCmd=true")[0].message


@pytest.mark.parametrize("name", sorted(UNENFORCED & set(CONTAINER)))
def test_a_key_that_no_driver_carries_out_is_refused_by_name(name: str) -> None:
    found = problems_of(f"{name}=1")
    assert any(f"{name}= is not supported by this version" in problem.message for problem in found)
    assert any(problem.severity is Severity.ERROR for problem in found)


def test_a_value_that_no_driver_carries_out_is_refused_though_its_key_is_known() -> None:
    for line in sorted(UNENFORCED & {"UserNS=host", "Notify=yes"}):
        assert any("not supported by this version" in problem.message for problem in problems_of(line)), line


@pytest.mark.parametrize("key", [key for key in CONTAINER.values() if key.handling is Handling.IMPOSSIBLE])
def test_what_is_impossible_is_refused_with_the_reason(key: quadlet_keys.Key) -> None:
    image = "" if key.name == "Rootfs" else "Image=busybox:1"
    (found,) = problems_of(f"{key.name}=x", image)
    assert found.severity is Severity.ERROR
    assert found.message == f"{key.name}= is not possible here: {key.ours}"
    assert found.hint == key.hint


@pytest.mark.parametrize("key", [key for key in CONTAINER.values() if key.handling is Handling.LIMITED])
def test_what_is_limited_is_warned_of(key: quadlet_keys.Key) -> None:
    (found,) = problems_of(f"{key.name}=--nonesuch")
    assert found.severity is Severity.WARNING
    assert "no effect" in found.message and found.hint


def test_no_key_of_quadlets_is_one_of_ours_in_x_fleet_with_another_meaning() -> None:
    assert set(CONTAINER) & XFLEET_KEYS == {"Memory", "Secret"}  # which mean the same


# PodmanArgs=


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--add-host db:10.0.0.1", [("AddHost", "db:10.0.0.1")]),
        ("--memory=1g -m 2g", [("Memory", "1g"), ("Memory", "2g")]),
        ("-e A=1 --env 'B=b c'", [("Environment", '"A=1"'), ("Environment", '"B=b c"')]),
        ("-p8080:80 -v /a:/b:ro", [("PublishPort", "8080:80"), ("Volume", "/a:/b:ro")]),
        ("--init --read-only=false", [("RunInit", "yes"), ("ReadOnly", "false")]),
        (
            "--security-opt no-new-privileges --security-opt=label=type:t",
            [("NoNewPrivileges", "yes"), ("SecurityLabelType", "t")],
        ),
        ("--cap-add NET_ADMIN", [("AddCapability", '"NET_ADMIN"')]),
    ],
)
def test_options_for_podman_are_read_as_the_keys_that_mean_them(
    words: str, options: list[tuple[str, str]]
) -> None:
    problems = Problems()
    found = podman_args.expand((Option("Container", "PodmanArgs", words, 3),), problems)
    assert [(option.name, option.value) for option in found] == options
    assert {option.line for option in found} == {3}
    assert problems.found == []


def test_options_that_have_no_key_are_named_with_nothing_else_lost() -> None:
    problems = Problems()
    line = "--privileged --cpus 2 --init --security-opt systempaths=unconfined --pod x"
    found = podman_args.expand((Option("Container", "PodmanArgs", line, 3),), problems)
    assert [option.name for option in found] == ["RunInit"]
    words = ("'--privileged'", "'--cpus'", "systempaths=unconfined", "'--pod'")
    said = [problem.message for problem in problems.found]
    assert [word in text for word, text in zip(words, said, strict=True)] == [True] * 4
    assert all(problem.line == 3 and problem.severity is Severity.WARNING for problem in problems.found)


def test_an_option_for_podman_that_no_driver_carries_out_is_refused_like_its_key() -> None:
    if "Sysctl" in UNENFORCED:
        found = problems_of("PodmanArgs=--sysctl a.b=1")
        assert [problem.message for problem in found] == ["Sysctl= is not supported by this version"]


# the page


def test_the_page_has_the_table_as_it_is() -> None:
    page = quadlet_table.PAGE.read_text()
    assert all(f"<!-- {group} begins" in page for group in quadlet_keys.KEYS)
    assert page == quadlet_table.rewritten(page), "write it anew: tests/harness/quadlet_table.py"
