"""What holds of policies whatever a unit asks for and a host allows."""

from __future__ import annotations

from fnmatch import fnmatchcase
from posixpath import commonpath, normpath

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from unitfleet.demands import demands_of
from unitfleet.policy import ANY, DOCKER_SOCKET, OPEN, Account, Demands, Policy, Processes, exceeds
from unitfleet.spec import Command, ContainerSpec, MountSpec, ServiceSpec

CAPABILITIES = ("CAP_CHOWN", "CAP_NET_ADMIN", "ALL")
PATHS = ("/", "/srv", "/srv/a", "/srvx", "//srv/./a/", "/etc/shadow", "/run", "/run/docker.sock", "/dev/kvm")


def some(words: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), max_size=3, unique=True).map(tuple)


def any_or(words: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.one_of(st.just((ANY,)), some(words))


policies = st.builds(
    Policy,
    processes=st.sampled_from(Processes),
    host_network=st.booleans(),
    capabilities=any_or(CAPABILITIES[:2]),
    devices=any_or(("/dev/*", "/dev/kvm", "/srv/*")),
    mounts=any_or(PATHS),
)
containers = st.builds(
    ContainerSpec,
    image=st.just("a:1"),
    networks=st.sampled_from([(), ("host",), ("none",), ("lan",)]),
    add_capabilities=some(CAPABILITIES),
    devices=some(PATHS).map(lambda paths: tuple((path, path, "rwm", False) for path in paths)),
    mounts=some(PATHS).map(lambda paths: tuple(MountSpec(kind="bind", source=at, target=at) for at in paths)),
    environment_files=some(PATHS).map(lambda paths: tuple((path, False) for path in paths)),
)
services = st.builds(
    ServiceSpec,
    user=st.sampled_from(["", "root", "0", "www"]),
    start=st.builds(Command, words=st.just(("/bin/true",)), privileged=st.booleans()).map(lambda one: (one,)),
    environment_files=some(PATHS).map(lambda paths: tuple((path, False) for path in paths)),
)


def below(path: str, prefixes: tuple[str, ...]) -> bool:
    return prefixes == (ANY,) or any(commonpath([path, prefix]) == prefix for prefix in map(tidy, prefixes))


def tidy(path: str) -> str:
    return "/" + normpath(path).strip("/")


@given(containers, policies)
def test_a_container_that_is_let_through_has_nothing_that_its_host_does_not_allow(
    container: ContainerSpec, policy: Policy
) -> None:
    if exceeds(demands_of(ServiceSpec(), container), policy) is not None:
        return
    assert policy.host_network or "host" not in container.networks
    assert policy.capabilities == (ANY,) or set(container.add_capabilities) <= set(policy.capabilities)
    for path, *_ in container.devices:
        assert policy.devices == (ANY,) or any(fnmatchcase(tidy(path), glob) for glob in policy.devices)
    sources = [tidy(mount.source) for mount in container.mounts]
    for path in (*sources, *(tidy(path) for path, _ in container.environment_files)):
        assert below(path, policy.mounts)
    assert not any(commonpath([source, DOCKER_SOCKET]) == source for source in sources)


@given(services, policies)
def test_a_process_that_is_let_through_is_roots_only_where_that_is_allowed(
    service: ServiceSpec, policy: Policy
) -> None:
    if exceeds(demands_of(service, None), policy) is not None:
        return
    assert policy.processes is not Processes.NONE
    if policy.processes is Processes.NOT_ROOT:
        assert service.user == "www" and not service.start[0].privileged


@given(containers, policies)
def test_a_policy_that_allows_more_refuses_nothing_that_a_closer_one_lets_through(
    container: ContainerSpec, policy: Policy
) -> None:
    demands = demands_of(ServiceSpec(), container)
    for name in ("host_network", "capabilities", "devices", "mounts"):
        wider = msgspec.structs.replace(policy, **{name: getattr(OPEN, name)})
        assert exceeds(demands, policy) is not None or exceeds(demands, wider) is None


@given(policies)
def test_a_confined_container_goes_where_containers_go(policy: Policy) -> None:
    assert exceeds(Demands(), policy) is None


@given(policies)
def test_a_policy_comes_back_from_the_store_as_it_was(policy: Policy) -> None:
    assert msgspec.convert(msgspec.to_builtins(policy), Policy) == policy
    assert Account.NONE is Demands().account
