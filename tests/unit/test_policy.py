"""What a host's policy lets units ask for: the words, the file, and where its paths lead."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from contract.driver_rig import placement_of
from unit_agent.driver import Order
from unit_agent.policy import Guard, parse, read, refused
from unitfleet import accept
from unitfleet.errors import InvalidConfig
from unitfleet.policy import ANY, OPEN, Account, Demands, Policy, Processes, exceeds

SOCKET = "/run/docker.sock"


def of(container: str = "", service: str = "") -> Demands:
    """Return what a unit with these lines asks for."""
    text = f"[Service]\nExecStart=/bin/true\n{service}" if service else f"[Container]\nImage=a:1\n{container}"
    return accept.read("a.service", text).requirements.demands


def case(name: str, demands: Demands, policy: Policy | None, why: str | None) -> object:
    return pytest.param(demands, policy, why, id=name)


NETWORK = of("Network=host")
ADMIN = of("AddCapability=net_admin")
NEVER = "never allows the Docker socket in a container"


@pytest.mark.parametrize(
    ("demands", "policy", "why"),
    [
        case("a plain container is welcome everywhere", of(), Policy(), None),
        case("named volumes and tmpfs show nothing of the host", of("Volume=data:/d\nTmpfs=/t"), Policy(), None),
        case("the host's network", NETWORK, Policy(), "allows no host network"),
        case("the host's network where it is allowed", NETWORK, Policy(host_network=True), None),
        case("another network is not the host's", of("Network=hostess"), Policy(), None),
        case("a capability", ADMIN, Policy(), "allows no capabilities, so not CAP_NET_ADMIN"),
        case(
            "another capability than the allowed",
            ADMIN,
            Policy(capabilities=("CAP_CHOWN",)),
            "allows the capabilities CAP_CHOWN, not CAP_NET_ADMIN",
        ),
        case("an allowed capability", ADMIN, Policy(capabilities=("CAP_NET_ADMIN",)), None),
        case(
            "all capabilities are more than a list",
            of("AddCapability=all"),
            Policy(capabilities=("CAP_NET_ADMIN",)),
            "allows the capabilities CAP_NET_ADMIN, not ALL",
        ),
        case("all capabilities where any is allowed", of("AddCapability=all"), Policy(capabilities=(ANY,)), None),
        case("a device", of("AddDevice=/dev/kvm"), Policy(), "allows no devices, so not /dev/kvm"),
        case("an allowed device", of("AddDevice=-/dev/dri/card0"), Policy(devices=("/dev/dri/*",)), None),
        case(
            "a star reaches into no directory",
            of("AddDevice=/dev/mapper/root"),
            Policy(devices=("/dev/*",)),
            "allows the devices /dev/*, not /dev/mapper/root",
        ),
        case("a mount", of("Volume=/etc:/e:ro"), Policy(), "allows no mounts of the host, so not /etc"),
        case(
            "a mount elsewhere",
            of("Volume=/etc:/e"),
            Policy(mounts=("/srv",)),
            "allows mounts below /srv, not /etc",
        ),
        case("a mount below", of("Mount=type=bind,source=/srv/a,target=/d"), Policy(mounts=("/srv",)), None),
        case("the directory itself", of("Volume=/srv/:/d"), Policy(mounts=("/srv",)), None),
        case(
            "a name that only begins alike",
            of("Volume=/srv-secret:/d"),
            Policy(mounts=("/srv",)),
            "allows mounts below /srv, not /srv-secret",
        ),
        case(
            "slashes and dots hide nothing",
            of("Volume=//etc/./shadow:/d"),
            Policy(mounts=("/srv",)),
            "allows mounts below /srv, not /etc/shadow",
        ),
        case(
            "a file that is read for it",
            of("EnvironmentFile=/etc/secret"),
            Policy(mounts=("/srv",)),
            "allows environment files below /srv, not /etc/secret",
        ),
        case("the Docker socket", of(f"Volume={SOCKET}:/d"), None, NEVER),
        case("the Docker socket by its old name", of("Volume=/var/run/docker.sock:/d:ro"), OPEN, NEVER),
        case("the directory that holds it", of("Volume=/var/run:/d"), OPEN, NEVER),
        case("the whole host, which holds it", of("Volume=/:/host:ro"), None, NEVER),
        case("a neighbour of the socket", of("Volume=/run/lock:/d"), OPEN, None),
        case("anything else without a policy", of("Network=host\nAddCapability=all\nVolume=/etc:/e"), None, None),
        case("a process", of(service="User=www"), Policy(), "allows containers only, no [Service] units"),
        case("a process as another", of(service="User=www"), Policy(processes=Processes.NOT_ROOT), None),
        *(
            case(
                f"a process as root: {service}",
                of(service=service),
                Policy(processes=Processes.NOT_ROOT),
                "allows no processes as root (User= names another)",
            )
            for service in (
                "User=",
                "User=root",
                "User=00",
                "User=www\nGroup=root",
                "User=www\nExecStop=+/bin/true",
            )
        ),
        case(
            "a process as root where any is allowed",
            of(service="User=root"),
            Policy(processes=Processes.ANY),
            None,
        ),
    ],
)
def test_a_unit_that_asks_for_more_than_the_policy_allows_is_told_what_is_allowed(
    demands: Demands, policy: Policy | None, why: str | None
) -> None:
    assert exceeds(demands, policy) == why


def test_the_file_says_what_is_allowed_and_the_rest_is_not() -> None:
    text = """
    processes = "not-root"
    capabilities = ["net_bind_service", "CAP_CHOWN"]
    devices = "any"
    mounts = ["/srv/", "/var/run/app"]
    """
    assert parse(text, "p") == Policy(
        processes=Processes.NOT_ROOT,
        capabilities=("CAP_NET_BIND_SERVICE", "CAP_CHOWN"),
        devices=(ANY,),
        mounts=("/srv", "/run/app"),
    )
    assert parse("", "p") == Policy()
    assert parse('mounts = "none"', "p") == Policy()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\nhost_netwrok = true", "cannot use p:2: unknown key host_netwrok", "did you mean host-network?"),
        ("[mount]\na = 1", "cannot use p:1: unknown key mount", "did you mean mounts?"),
        ('host-network = "yes"', "cannot use p:1: host-network: 'yes' is neither true nor false", ""),
        ('\n\nmounts = ["srv"]', "cannot use p:3: mounts: 'srv' is no absolute path without '..'", ""),
        ('mounts = ["/srv/../etc"]', "cannot use p:1: mounts: '/srv/../etc' is no absolute path without '..'", ""),
        ('devices = ["any"]', 'cannot use p:1: devices: "any" and "none" stand alone, not in a list', ""),
        ("processes = true", "cannot use p:1: processes: True is none of", ""),
        ('capabilities = ["*"]', "cannot use p:1: capabilities: '*' is no capability", ""),
        (
            "privileged = false",
            "cannot use p:1: privileged: no unit can ask for that in this version",
            "leave it out",
        ),
        ("\nmounts = maybe", "cannot read p:2: ", ""),
    ],
)
def test_a_slip_in_the_file_is_told_with_its_line(text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        parse(text, "p")
    assert refusal.value.message.startswith(message)
    assert (refusal.value.hint or "").startswith(hint)


def test_a_policy_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no such file"):
        read(str(tmp_path / "policy.toml"), root=True)


def test_no_process_is_roots_where_the_agent_is_not(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('processes = "not-root"')
    plain, rooted = read(str(file), root=False), read(str(file), root=True)
    assert exceeds(Demands(account=Account.ROOT), plain) is None
    assert exceeds(Demands(account=Account.ROOT), rooted) is not None


def test_a_link_in_an_allowed_directory_leads_nowhere_else(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    allowed.mkdir()
    secret.mkdir()
    (allowed / "link").symlink_to(secret)
    policy = Policy(mounts=(str(allowed),), devices=(f"{allowed}/*",))
    for demands in (
        Demands(mounts=(f"{allowed}/link/x",)),
        Demands(files=(f"{allowed}/link/x",)),
        Demands(devices=(f"{allowed}/link",)),
    ):
        assert exceeds(demands, policy) is None, "the leader can't know"
        assert "which leads to" in (refused(demands, policy, SOCKET) or "")
    assert refused(Demands(mounts=(f"{allowed}/mine",)), policy, SOCKET) is None


def test_a_directory_that_the_policy_names_by_a_link_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "disk2").mkdir()
    (tmp_path / "srv").symlink_to(tmp_path / "disk2")
    assert refused(Demands(mounts=(f"{tmp_path}/srv/a",)), Policy(mounts=(f"{tmp_path}/srv",)), SOCKET) is None


@pytest.mark.parametrize("way", ["path", "link", "hard link", "directory", "link to the directory"])
@pytest.mark.parametrize("policy", [None, OPEN], ids=["without a policy", "with one that allows all"])
def test_the_docker_socket_is_given_to_no_container_by_any_name(
    tmp_path: Path, way: str, policy: Policy | None
) -> None:
    home = tmp_path / "engine"
    home.mkdir()
    engine = home / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(engine))
        source = {"path": engine, "directory": home}.get(way, tmp_path / "other")
        if way == "link":
            source.symlink_to(engine)
        elif way == "hard link":
            os.link(engine, source)
        elif way == "link to the directory":
            source.symlink_to(home)
        assert refused(Demands(mounts=(str(source),)), policy, str(engine)) == NEVER
        assert refused(Demands(mounts=(str(tmp_path / "else"),)), policy, str(engine)) is None


def test_an_account_of_another_name_that_is_roots_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    toor = pwd.struct_passwd(("toor", "x", 0, 0, "", "/root", "/bin/sh"))
    monkeypatch.setattr("unit_agent.policy.pwd.getpwnam", lambda name: toor)
    policy = Policy(processes=Processes.NOT_ROOT)
    assert refused(of(service="User=toor"), policy, SOCKET, "toor") is not None


async def test_a_unit_that_names_no_path_and_no_account_waits_for_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: object) -> None:
        raise AssertionError("a thread was asked, where a disk may hang")

    monkeypatch.setattr("unit_agent.policy.asyncio.to_thread", hangs)
    for policy, why in ((Policy(), "policy: m1 allows no host network"), (Policy(host_network=True), None)):
        spec = accept.read("a.service", "[Container]\nImage=a:1\nNetwork=host\n")
        guard = Guard("m1", policy, SOCKET)
        assert await guard.refusal(Order(placement_of("a.service", 1), spec)) == why
    with pytest.raises(AssertionError, match="a thread"):
        spec = accept.read("a.service", "[Container]\nImage=a:1\nVolume=/srv:/srv\n")
        await guard.refusal(Order(placement_of("a.service", 1), spec))
