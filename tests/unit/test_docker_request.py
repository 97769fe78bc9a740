"""What the Engine is asked to create: a pure mapping, word by word."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unit_agent.driver import Order
from unit_agent.drivers.docker_request import (
    Kept,
    Owner,
    container_name,
    create_body,
    is_copy,
    read_environment,
    unit_of_name,
)
from unitfleet.errors import DriverError
from unitfleet.model import Placement, Requirements, Wanted
from unitfleet.spec import (
    ContainerSpec,
    HealthSpec,
    Limit,
    MountSpec,
    PortSpec,
    Restart,
    RestartPolicy,
    ServiceSpec,
    ServiceType,
    UnitSpec,
)

OWNER = Owner(cluster="cluster-1", machine="4f9a-2b77c1d0e5", machine_name="node-a")
UNIT = "adserver@1.service"


def order_of(unit: str = UNIT, service: ServiceSpec = ServiceSpec(), **container: Any) -> Order:  # noqa: B008
    placement = Placement(
        unit=unit,
        machine=OWNER.machine,
        spec="abc",
        incarnation="i1",
        epoch=12,
        wanted=Wanted.LAUNCHED,
        restart=3,
        reason="",
    )
    spec = UnitSpec(
        name=unit,
        description="",
        requirements=Requirements(unit=unit, drivers=("docker",)),
        service=service,
        container=ContainerSpec(**{"image": "app:1", **container}),
    )
    return Order(placement, spec)


def body_of(order: Order, **more: Any) -> dict[str, Any]:
    return create_body(OWNER, order, **{"image": "app@sha256:1", **more})


def bind(**changes: Any) -> MountSpec:
    return MountSpec(**{"kind": "bind", "source": "/srv/data", "target": "/data", **changes})


MAPPED = {
    "exec is the command": ({"exec": ("a", "b")}, "Cmd", ["a", "b"]),
    "an entrypoint": ({"entrypoint": ("/run",)}, "Entrypoint", ["/run"]),
    "an empty entrypoint clears the image's": ({"entrypoint": ()}, "Entrypoint", [""]),
    "a user": ({"user": "1000:100"}, "User", "1000:100"),
    "a working directory": ({"working_dir": "/srv"}, "WorkingDir", "/srv"),
    "a host name": ({"hostname": "ads"}, "Hostname", "ads"),
    "a stop signal": ({"stop_signal": "SIGINT"}, "StopSignal", "SIGINT"),
    "a stop timeout": ({"stop_timeout_s": 90.0}, "StopTimeout", 90),
    "exposed ports": ({"ports": (PortSpec(container=80),)}, "ExposedPorts", {"80/tcp": {}}),
}

MAPPED_TO_HOST_CONFIG = {
    "the Engine never restarts": ({}, "RestartPolicy", {"Name": "no"}),
    "logs are bounded": ({}, "LogConfig", {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}),
    "a log option wins over the bound": (
        {"log_driver": "json-file", "log_options": (("max-size", "1m"),)},
        "LogConfig",
        {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "3"}},
    ),
    "another log driver gets no bounds of ours": (
        {"log_driver": "journald"},
        "LogConfig",
        {"Type": "journald", "Config": {}},
    ),
    "a port without a host port takes a free one": (
        {"ports": (PortSpec(container=80),)},
        "PortBindings",
        {"80/tcp": [{"HostIp": "", "HostPort": ""}]},
    ),
    "a port with address and protocol": (
        {"ports": (PortSpec(container=53, host=5353, address="127.0.0.1", protocol="udp"),)},
        "PortBindings",
        {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}]},
    ),
    "the host's network": ({"networks": ("host",)}, "NetworkMode", "host"),
    "the first of several networks": ({"networks": ("one", "two")}, "NetworkMode", "one"),
    "memory": ({"memory": 64 << 20}, "Memory", 64 << 20),
    "shared memory": ({"shm_size": 1 << 20}, "ShmSize", 1 << 20),
    "pids": ({"pids_limit": 100}, "PidsLimit", 100),
    "read-only": ({"read_only": True}, "ReadonlyRootfs", True),
    "an init": ({"run_init": True}, "Init", True),
    "added capabilities": ({"add_capabilities": ("NET_ADMIN",)}, "CapAdd", ["NET_ADMIN"]),
    "dropped capabilities": ({"drop_capabilities": ("ALL",)}, "CapDrop", ["ALL"]),
    "hosts": ({"add_hosts": ("db:10.0.0.1",)}, "ExtraHosts", ["db:10.0.0.1"]),
    "DNS": ({"dns": ("10.0.0.2",)}, "Dns", ["10.0.0.2"]),
    "a limit without end": (
        {"ulimits": (("NOFILE", Limit(soft=1024, hard=None)),)},
        "Ulimits",
        [{"Name": "nofile", "Soft": 1024, "Hard": -1}],
    ),
    "a bind mount, whose source must be there": (
        {"mounts": (bind(read_only=True, options=("rshared",)),)},
        "Mounts",
        [
            {
                "Type": "bind",
                "Source": "/srv/data",
                "Target": "/data",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rshared"},
            }
        ],
    ),
    "a relabelled bind": ({"mounts": (bind(read_only=True, options=("Z",)),)}, "Binds", ["/srv/data:/data:ro,Z"]),
    "an anonymous volume": (
        {"mounts": (MountSpec(kind="volume", target="/data"),)},
        "Mounts",
        [{"Type": "volume", "Target": "/data", "ReadOnly": False}],
    ),
    "a named volume that stays empty": (
        {"mounts": (MountSpec(kind="volume", source="db", target="/data", options=("nocopy",)),)},
        "Mounts",
        [
            {
                "Type": "volume",
                "Source": "db",
                "Target": "/data",
                "ReadOnly": False,
                "VolumeOptions": {"NoCopy": True},
            }
        ],
    ),
    "a tmpfs": (
        {"mounts": (MountSpec(kind="tmpfs", target="/run", options=("size=1024", "mode=755")),)},
        "Tmpfs",
        {"/run": "size=1024,mode=755"},
    ),
}


@pytest.mark.parametrize(("container", "key", "expected"), MAPPED.values(), ids=MAPPED)
def test_a_key_becomes_the_engines_word(container: dict[str, Any], key: str, expected: object) -> None:
    assert body_of(order_of(**container))[key] == expected


@pytest.mark.parametrize(
    ("container", "key", "expected"), MAPPED_TO_HOST_CONFIG.values(), ids=MAPPED_TO_HOST_CONFIG
)
def test_a_key_becomes_a_word_of_the_host_config(container: dict[str, Any], key: str, expected: object) -> None:
    assert body_of(order_of(**container))["HostConfig"][key] == expected


def test_what_the_unit_does_not_say_is_left_to_the_image_and_the_engine() -> None:
    body = body_of(order_of())
    assert set(body) == {"Image", "Env", "Labels", "ExposedPorts", "StopTimeout", "HostConfig"}
    assert set(body["HostConfig"]) == {"RestartPolicy", "LogConfig", "PortBindings"}
    assert body["Image"] == "app@sha256:1"


def test_the_units_own_stop_timeout_holds_when_the_container_says_none() -> None:
    assert body_of(order_of(service=ServiceSpec(timeout_stop_s=90.0)))["StopTimeout"] == 90
    assert body_of(order_of(service=ServiceSpec(timeout_stop_s=None)))["StopTimeout"] == -1


def test_ulimit_wins_over_the_services_limit_and_both_are_kept() -> None:
    service = ServiceSpec(limits=(("NOFILE", Limit(soft=1, hard=1)), ("NPROC", Limit(soft=2, hard=2))))
    order = order_of(service=service, ulimits=(("nofile", Limit(soft=9, hard=9)),))
    assert body_of(order)["HostConfig"]["Ulimits"] == [
        {"Name": "nofile", "Soft": 9, "Hard": 9},
        {"Name": "nproc", "Soft": 2, "Hard": 2},
    ]


def test_environment_wins_over_its_files_and_ours_over_both() -> None:
    order = order_of(environment=(("A", "unit"), ("UNITFLEET_EPOCH", "forged")))
    env = body_of(order, file_environment=[("A", "file"), ("B", "file")])["Env"]
    assert env == ["A=unit", "B=file", "UNITFLEET_EPOCH=12", f"UNITFLEET_UNIT={UNIT}", "UNITFLEET_MACHINE=node-a"]


def test_the_labels_carry_the_copys_identity_which_no_user_label_replaces() -> None:
    labels = body_of(order_of(labels=(("team", "ads"), ("unitfleet.unit", "other.service"))))["Labels"]
    kept = labels.pop("unitfleet.kept")
    assert labels == {
        "team": "ads",
        "unitfleet.unit": UNIT,
        "unitfleet.cluster": "cluster-1",
        "unitfleet.machine": "4f9a-2b77c1d0e5",
        "unitfleet.epoch": "12",
        "unitfleet.spec": "abc",
        "unitfleet.incarnation": "i1",
        "unitfleet.restart": "3",
        "unitfleet.image": "app@sha256:1",
        "unitfleet.container": container_name(OWNER, order_of()),
    }
    assert OWNER.owns(labels)
    assert not Owner(cluster="cluster-2", machine=OWNER.machine, machine_name="").owns(labels)
    assert not Owner(cluster="cluster-1", machine="other", machine_name="").owns(labels)
    assert msgspec.json.decode(kept, type=Kept) == Kept()


def test_a_container_made_of_a_copys_image_is_no_copy() -> None:
    labels, name = body_of(order_of())["Labels"], container_name(OWNER, order_of())
    assert is_copy(labels, f"/{name}")
    assert is_copy(labels, f"{name}.stopped")
    assert not is_copy(labels, "/adventurous_ada")
    del labels["unitfleet.container"]  # of a version that did not write it
    assert is_copy(labels, name)


def test_what_stops_and_restarts_a_copy_is_kept_on_it() -> None:
    policy = RestartPolicy(when=Restart.ON_FAILURE, delay_s=3.0)
    service = ServiceSpec(type=ServiceType.ONESHOT, restart=policy, timeout_stop_s=45.0, timeout_start_s=None)
    labels = body_of(order_of(service=service, notify_healthy=True))["Labels"]
    assert msgspec.json.decode(labels["unitfleet.kept"], type=Kept) == Kept(
        type=ServiceType.ONESHOT, restart=policy, stop_timeout_s=45.0, start_timeout_s=None, notify_healthy=True
    )


def test_a_device_that_may_be_absent_is_left_out_when_it_is() -> None:
    devices = (("/dev/a", "/dev/a", "rwm", True), ("/dev/b", "/dev/c", "r", False))
    found = body_of(order_of(devices=devices), present=lambda path: False)["HostConfig"]["Devices"]
    assert found == [{"PathOnHost": "/dev/b", "PathInContainer": "/dev/c", "CgroupPermissions": "r"}]


def test_a_health_check_is_given_in_nanoseconds() -> None:
    health = HealthSpec(test=("CMD-SHELL", "true"), interval_s=1.5, timeout_s=2, retries=4, start_period_s=0.5)
    assert body_of(order_of(health=health))["Healthcheck"] == {
        "Test": ["CMD-SHELL", "true"],
        "Interval": 1_500_000_000,
        "Timeout": 2_000_000_000,
        "Retries": 4,
        "StartPeriod": 500_000_000,
    }


def test_a_mount_option_that_docker_lacks_is_refused_by_name() -> None:
    with pytest.raises(DriverError, match="'idmap'"):
        body_of(order_of(mounts=(bind(options=("idmap",)),)))


def test_a_unit_without_a_container_section_is_refused() -> None:
    order = order_of()
    bare = Order(order.placement, msgspec.structs.replace(order.spec, container=None))
    with pytest.raises(DriverError, match=UNIT):
        create_body(OWNER, bare, image="x")


@pytest.mark.parametrize("unit", [UNIT, "a:b.service", "under_score.service", "web-1.2.service"])
def test_a_containers_name_leads_back_to_its_unit(unit: str) -> None:
    name = container_name(OWNER, order_of(unit))
    assert name.startswith("unitfleet-4f9a2b77-")
    assert unit_of_name(OWNER, name) == unit
    assert unit_of_name(OWNER, f"{name}.stopped") == unit


def test_container_name_is_used_as_it_stands() -> None:
    assert container_name(OWNER, order_of(container_name="kafka")) == "kafka"
    with pytest.raises(ValueError, match="kafka"):
        unit_of_name(OWNER, "kafka")


def test_an_environment_file_is_read_as_docker_reads_it() -> None:
    text = '# a comment\n\n  A=one two \nB="quoted"\nC=\nHOME\n=nothing\nD=a=b\n'
    assert read_environment(text) == [("A", "one two "), ("B", '"quoted"'), ("C", ""), ("D", "a=b")]
