"""`Check=` and its kin: what is read of them, and what is refused with the right form."""

from __future__ import annotations

import pytest

from unitfleet.accept import read
from unitfleet.errors import InvalidUnit
from unitfleet.spec import CheckKind, CheckSpec, OnFailure, UnitSpec

SERVICE = "[Service]\nExecStart=/bin/sleep 1000\n"
CONTAINER = "[Container]\nImage=web:1\n"


def accepted(*lines: str, text: str = SERVICE) -> UnitSpec:
    return read("web@1.service", text + "[X-Fleet]\n" + "\n".join(lines) + "\n")


def check(*lines: str, text: str = SERVICE) -> CheckSpec:
    found = accepted(*lines, text=text).check
    assert found is not None
    return found


def refused(*lines: str, text: str = SERVICE) -> str:
    with pytest.raises(InvalidUnit) as caught:
        accepted(*lines, text=text)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("value", "kind", "target"),
    [
        ("http://:8080/healthz", CheckKind.HTTP, "http://localhost:8080/healthz"),
        ("http://localhost:8080", CheckKind.HTTP, "http://localhost:8080/"),
        ("http://127.0.0.1/a?b=c", CheckKind.HTTP, "http://localhost:80/a?b=c"),
        ("https://:8443/", CheckKind.HTTP, "https://localhost:8443/"),
        ("http://:808%i/caf%C3%A9", CheckKind.HTTP, "http://localhost:8081/caf%C3%A9"),
        ("tcp://:5432", CheckKind.TCP, "localhost:5432"),
        ("tcp://[::1]:5432", CheckKind.TCP, "localhost:5432"),
        ("exec:/bin/pg_isready -q", CheckKind.EXEC, "/bin/pg_isready -q"),
    ],
)
def test_a_check_asks_the_copy_itself(value: str, kind: CheckKind, target: str) -> None:
    found = check(f"Check={value}")
    assert (found.kind, found.target) == (kind, target)


def test_a_command_is_words_and_no_shell() -> None:
    assert check("Check=exec:/bin/sh -c 'test -e /tmp/a b'").words == ("/bin/sh", "-c", "test -e /tmp/a b")


def test_its_timings_are_read_and_have_defaults() -> None:
    usual = check("Check=tcp://:1")
    assert (usual.interval_s, usual.timeout_s, usual.retries, usual.start_period_s) == (10.0, 5.0, 3, 0.0)
    lines = ("CheckInterval=1min", "CheckTimeout=500ms", "CheckRetries=5", "CheckStartPeriod=2min")
    found = check("Check=tcp://:1", *lines)
    assert (found.interval_s, found.timeout_s, found.retries, found.start_period_s) == (60.0, 0.5, 5, 120.0)


def test_the_default_timeout_never_exceeds_the_interval() -> None:
    found = accepted("Check=tcp://:1", "CheckInterval=1s")
    assert found.check is not None and found.check.timeout_s == 1.0 and not found.warnings


def test_a_timeout_beyond_the_interval_is_said_at_its_line_and_taken() -> None:
    found = accepted("Check=tcp://:1", "CheckTimeout=20s")
    assert found.check is not None and found.check.timeout_s == 20.0
    [warning] = found.warnings
    assert warning.startswith("web@1.service:5: CheckTimeout= of 20 s is not less than CheckInterval= of 10 s")


def test_an_empty_check_takes_it_back() -> None:
    assert accepted("Check=tcp://:1", "Check=").check is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("Check=http//x",),
            "'http//x' is no check: write http://:PORT/PATH, https://:PORT/PATH, tcp://:PORT or",
        ),
        (("Check=healthz",), "is no check: write http://:PORT/PATH"),
        (("Check=http:/:80/",), "is no check: write"),
        (("Check=ftp://:21",), "is no check: write"),
        (
            ("Check=http://example.com:8080/x",),
            "'example.com' is another host: a check asks the copy itself, write",
        ),
        (("Check=http://169.254.169.254/",), "is another host"),
        (("Check=http://user:secret@localhost:80/",), "no user, password or blank"),
        (("Check=tcp://:0",), "needs a port from 1 to 65535"),
        (("Check=tcp://localhost",), "needs a port"),
        (("Check=tcp://:99999",), "is no URL"),
        (("Check=tcp://:1/path",), "asks a port and no path"),
        (("Check=exec:",), "names no command"),
        (("Check=exec:/bin/sh -c 'x",), "Check=: "),
        (("Check=tcp://:1", "CheckTimeout=0"), "CheckTimeout=: '0' is out of bounds: 100ms to 24h"),
        (("Check=tcp://:1", "CheckInterval=0"), "CheckInterval=: '0' is out of bounds"),
        (("Check=tcp://:1", "CheckInterval=infinity"), "no time span"),
        (("Check=tcp://:1", "CheckRetries=0"), "from 1 to 100"),
        (("Check=tcp://:1", "CheckRetries=many"), "from 1 to 100"),
        (("CheckInterval=5s",), "CheckInterval= without Check= checks nothing"),
        (("OnFailure=mail@%n.service",), "none of restart, keep"),
        (("OnFailure=Keep",), "none of restart, keep"),
        (("Checks=tcp://:1",), "did you mean Check?"),
    ],
)
def test_a_check_that_means_nothing_is_refused_with_the_right_form(lines: tuple[str, ...], said: str) -> None:
    assert said in refused(*lines)


def test_a_oneshot_has_no_check() -> None:
    assert "does not go with Type=oneshot" in refused("Check=tcp://:1", text=SERVICE + "Type=oneshot\n")


@pytest.mark.parametrize(
    ("container", "value", "said"),
    [
        ("HealthCmd=true\n", "tcp://:1", "does not go with HealthCmd= (line 3)"),
        ("HealthCmd=true\nNotify=healthy\n", "exec:true", "does not go with HealthCmd="),
        ("Network=none\n", "http://:80/", "can't reach a container with Network=none"),
        ("Network=none\n", "tcp://:80", "can't reach a container with Network=none"),
    ],
)
def test_what_contradicts_a_containers_own_words_is_refused(container: str, value: str, said: str) -> None:
    assert said in refused(f"Check={value}", text=CONTAINER + container)


def test_a_container_without_a_network_can_be_asked_from_inside_and_an_images_own_check_switched_off() -> None:
    assert check("Check=exec:true", text=CONTAINER + "Network=none\nHealthCmd=none\n").words == ("true",)


def test_on_failure_is_restart_unless_it_says_keep() -> None:
    assert accepted().on_failure is OnFailure.RESTART
    assert accepted("OnFailure=keep").on_failure is OnFailure.KEEP


def test_systemds_own_on_failure_is_another_key() -> None:
    text = "[Unit]\nOnFailure=alarm.service\n" + SERVICE
    assert read("web.service", text).on_failure is OnFailure.RESTART
