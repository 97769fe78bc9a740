"""`unitctl bootstrap launch` against moto's EC2 on loopback: instances with our user-data, errors of one line."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from harness.brokers import Broker, moto_server
from harness.etcd import free_ports
from unitctl.__main__ import run

pytestmark = pytest.mark.broker

AGENT = ("--role", "agent", "--etcd", "10.0.0.1:2379")
IMAGE = ("--image-id", "ami-12c6146b")  # one that moto has

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = moto_server(tmp_path_factory.mktemp("moto"))
    try:
        asyncio.run(broker.start())
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def moto(server: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 with nothing in it, and credentials for it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    address = f"http://127.0.0.1:{server.port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with urllib.request.urlopen(f"{address}/moto-api/reset", data=b"", timeout=10):
        pass


def running() -> list[Any]:
    reservations = boto3.client("ec2").describe_instances()["Reservations"]
    return [instance for each in reservations for instance in each["Instances"]]


def test_instances_run_with_our_user_data_and_their_ids_are_printed(moto: None, capsys: Capture) -> None:
    asked = ("--count", "2", "--type", "t3.large", "--tag", "role=adserver", "--key-name", "ada")
    boto3.client("ec2").create_key_pair(KeyName="ada")
    assert run(["bootstrap", "launch", *IMAGE, *asked, *AGENT]) == 0
    captured = capsys.readouterr()
    found = running()
    assert [line.split()[0] for line in captured.out.splitlines()] == [each["InstanceId"] for each in found]
    assert (
        "launching 2 instances t3.large of ami-12c6146b in eu-west-1, key ada, tags role=adserver" in captured.err
    )
    assert {each["InstanceType"] for each in found} == {"t3.large"}
    assert found[0]["Tags"] == [{"Key": "role", "Value": "adserver"}]
    kept = boto3.client("ec2").describe_instance_attribute(InstanceId=found[0]["InstanceId"], Attribute="userData")
    user_data = base64.b64decode(kept["UserData"]["Value"]).decode()
    assert user_data.startswith("#cloud-config\n")
    assert 'etcd = ["10.0.0.1:2379"]' in user_data


def test_a_dry_run_launches_nothing(moto: None, capsys: Capture) -> None:
    assert run(["bootstrap", "launch", *IMAGE, *AGENT, "--dry-run"]) == 0
    assert "nothing is launched; EC2 would: 1 instance t3.small" in capsys.readouterr().err
    assert running() == []


def test_json_tells_the_instances(moto: None, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\nruncmd: [[ls]]\n")
    assert run(["bootstrap", "launch", *IMAGE, "--user-data", str(file), "-o", "json"]) == 0
    [instance] = json.loads(capsys.readouterr().out)["instances"]
    assert instance["id"] == running()[0]["InstanceId"]


def test_what_ec2_refuses_is_one_line(moto: None, capsys: Capture) -> None:
    assert run(["bootstrap", "launch", *IMAGE, *AGENT, "--subnet", "subnet-none"]) == 1
    captured = capsys.readouterr()
    assert (
        "error: cannot launch: The subnet ID 'subnet-none' does not exist (InvalidSubnetID.NotFound)"
        in captured.err
    )
    assert captured.err.count("error:") == 1
    assert "Traceback" not in captured.err


def test_without_region_credentials_or_api_the_reason_is_told(
    moto: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert run(["bootstrap", "launch", *IMAGE, *AGENT]) == 7
    assert "Could not connect to the endpoint URL" in capsys.readouterr().err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert run(["bootstrap", "launch", *IMAGE, *AGENT]) == 6
    assert "hint: AWS_ACCESS_KEY_ID" in capsys.readouterr().err
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert run(["bootstrap", "launch", *IMAGE, *AGENT]) == 1
    assert "hint: --region eu-west-1" in capsys.readouterr().err


def test_user_data_that_no_host_could_boot_with_is_not_launched(
    moto: None, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\ncoreos: {}\n")
    assert run(["bootstrap", "launch", *IMAGE, "--user-data", str(file)]) == 1
    assert "user-data:2: coreos is a key of CoreOS alone" in capsys.readouterr().err
    assert run(["bootstrap", "launch", *IMAGE]) == 2
    assert run(["bootstrap", "launch", *IMAGE, *AGENT, "--tag", "x"]) == 2
    assert running() == []
