"""The table of settings in unitctl is what the daemons themselves declare and refuse."""

from __future__ import annotations

import dataclasses
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from unit_agent.settings import AgentConfig
from unit_master.settings import MasterConfig
from unitctl.bootstrap.settings import AGENT, MASTER, Daemon, metadata
from unitfleet.config import load
from unitfleet.errors import InvalidConfig
from unitfleet.problems import BadValue

DECLARED: list[tuple[Daemon, type]] = [(AGENT, AgentConfig), (MASTER, MasterConfig)]

# Of each setting values that the daemon takes and values that it refuses, as they stand in a TOML file.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "etcd-cert": ([], ["/a/path", 7]),  # with its key alone
    "join": ([""], [7]),  # a token is refused here alone: it is read by everybody
    "policy": ([""], [7]),  # whether the file is there only the host knows
    "etcd-key": ([], ["/a/path", 7]),
    "etcd": ([["10.0.0.1:2379", "[::1]:2379"]], [[], ["10.0.0.1"], ["a:99999"], 7]),
    "name": (["m1", "node-a.b"], ["", "a b", "../x"]),
    "profile": (["fast"], ["slow", 3]),
    "log-format": (["json"], ["xml"]),
    "log-level": (["debug"], ["loud"]),
    "metadata": ([{"role": "adserver"}, {}], [["role"], {"a": 1}]),
    "listen": (["127.0.0.1:0"], ["127.0.0.1", ":1", "a:70000"]),
    "drivers": ([["auto"], ["process", "docker"]], [["auto", "docker"], ["podman"], []]),
    "egress": (["1G", "2.5G", ""], ["1Z", "0", "fast"]),
    "ingress": (["300M"], ["-1"]),
    "pull-limit": (["300M"], ["1 MB/s"]),
    "shape-uplink": (["never"], ["always"]),
    "drain-on-notice": ([True], ["maybe"]),
    "imds": (["http://169.254.169.254", ""], [7]),
    "disk-full": ([1, 100], [0, 101, "x"]),
    "inodes-full": ([95], [0, 101]),
    "cgroupspy": ([True], ["maybe"]),
    "starts-at-once": ([1], [0]),
    "pulls-at-once": ([1], [0]),
    "warm": ([["registry:5000/app:1"], []], [["No Image"], 7]),
    "warm-timeout": (["10min", "0"], ["soon", "infinity"]),
    "image-gc": ([0, 20, 99], [1, 19, 100]),
    "image-gc-all": ([False], [[]]),
    "scenes-max": ([0, 3], [-1]),
    "scenes-mib": ([0], [-1]),
    "log-sinks": ([["store:"], ["nats://h:4222"], []], [["smoke:"], ["nats://user:pw@h:1"], ["store"]]),
    "log-unit-max": (["64M"], ["much", "0"]),
    "log-max": (["4G"], ["much"]),
    "log-age": (["7d"], ["0", "old"]),
    "log-rate": (["50000,32M"], ["50000", "0,32M", "x,32M", "5,0"]),
    "log-store-max": (["5G", "16M"], ["15M", "much"]),
    "log-store-age": (["7d"], ["0", "old"]),
    "reads-per-s": ([1, 100], [0, 101, "x"]),
    "reads-at-once": ([50], [49, "x"]),
    "changes-per-s": ([1, 20], [0, 21]),
    "changes-at-once": ([5], [4]),
    "trusted-network": ([True], ["maybe"]),
}


@pytest.mark.parametrize(("daemon", "config"), DECLARED, ids=lambda value: getattr(value, "name", ""))
def test_every_setting_of_a_daemon_is_known_by_its_name_and_kind(daemon: Daemon, config: type) -> None:
    hints = typing.get_type_hints(config)

    def kind(name: str) -> type:
        found = hints[name]
        base = typing.get_origin(found) or found
        return str if issubclass(base, StrEnum | Path) else base

    declared = {field.name.replace("_", "-"): kind(field.name) for field in dataclasses.fields(config)}
    assert {name: setting.kind for name, setting in daemon.settings.items()} == declared


@pytest.mark.parametrize(("daemon", "config"), DECLARED, ids=lambda value: getattr(value, "name", ""))
def test_a_value_is_refused_here_if_and_only_if_the_daemon_refuses_it(
    daemon: Daemon, config: type, tmp_path: Path
) -> None:
    def theirs(name: str, value: Any) -> bool:
        file = tmp_path / "daemon.toml"
        written = str(value).replace("'", '"').replace("True", "true").replace("False", "false")
        if isinstance(value, dict):
            written = "{" + ",".join(f"{key} = {f'{text!r}'}" for key, text in value.items()) + "}"
        if isinstance(value, str):
            written = f'"{value}"'
        file.write_text(f"{name} = {written}\n")
        try:
            load("unit", config, [], {"UNITFLEET_CONFIG": str(file)})
        except InvalidConfig:
            return False
        return True

    def ours(name: str, value: Any) -> bool:
        try:
            daemon.agree({name: daemon.read(name, value)})
        except InvalidConfig:
            return False
        return True

    for name in daemon.settings:
        taken, refused = VALUES.get(name, (["/a/path"], [7]))
        for value, wanted in [*((value, True) for value in taken), *((value, False) for value in refused)]:
            assert (ours(name, value), theirs(name, value)) == (wanted, wanted), (name, value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("egres", "1G", "did you mean egress?"),
        ("nonsense", "1", "settings: address,"),
        ("profile", "slow", "'slow' is none of default, fast, fastest"),
        ("disk-full", "101", "101 is not from 1 to 100"),
        ("etcd", "10.0.0.1", "is not HOST:PORT"),
        ("join", "ufj1.abc", "it is a secret, and user-data and settings are read by everybody on the host"),
    ],
)
def test_a_refusal_names_the_setting_and_what_is_right(name: str, value: str, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        AGENT.read(name, value)
    assert caught.value.message.startswith(f"cannot use agent.{name}: ")
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_the_api_stays_on_loopback_unless_the_network_is_trusted() -> None:
    with pytest.raises(InvalidConfig, match="without TLS the API stays on loopback"):
        MASTER.agree({"listen": "0.0.0.0:4001"})
    MASTER.agree({"listen": "0.0.0.0:4001", "trusted-network": True})


def test_metadata_is_fleets_one_string() -> None:
    assert metadata("role=adserver, region=us-east,") == {"role": "adserver", "region": "us-east"}


@pytest.mark.parametrize("text", ["role", "=x", "role=", "role=a b", 'role="a"', "role=a,role=b", "a=b=c"])
def test_metadata_that_no_unit_could_ask_for_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        metadata(text)
