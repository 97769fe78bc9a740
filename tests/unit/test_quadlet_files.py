"""`.volume` and `.network` files that a unit refers to: a part of its text, and of what its driver makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit_agent.drivers.docker_request import Owner
from unit_agent.drivers.docker_resources import network_body, volume_body
from unitctl.__main__ import run
from unitctl.unitfiles import submitted
from unitfleet import accept
from unitfleet.problems import Problem
from unitfleet.spec import ContainerSpec, MountSpec, NetworkSpec, SubnetSpec, VolumeSpec

UNIT = "[Container]\nImage=busybox:1\n"


def examined(text: str, name: str = "web@1.service") -> tuple[ContainerSpec, list[Problem]]:
    spec, problems = accept.examine(name, text)
    assert spec is not None and spec.container is not None
    return spec.container, problems


def test_a_unit_names_the_volume_that_the_file_behind_it_makes() -> None:
    spec, problems = examined(
        f"{UNIT}Volume=data.volume:/d:Z\nMount=type=volume,source=more@.volume,target=/m\n[X-Fleet]\nOnMachineLoss=wait\n"
        "[X-Volume data.volume]\nVolumeName=db\nLabel=a=b\nDevice=tmpfs\nType=tmpfs\nOptions=size=1m\nUID=7\n"
        "[X-Volume more@.volume]\nCopy=no\n"
    )
    assert problems == []
    assert spec.made_volumes == (
        VolumeSpec(
            name="db",
            labels=(("a", "b"),),
            options=(("device", "tmpfs"), ("type", "tmpfs"), ("o", "uid=7,size=1m")),
        ),
        VolumeSpec(name="systemd-more-1", copy_up=False),
    )
    assert spec.mounts == (
        MountSpec(kind="volume", source="db", target="/d", options=("Z",)),
        MountSpec(kind="volume", source="systemd-more-1", target="/m", options=("nocopy",)),
    )


def test_a_unit_names_the_network_that_the_file_behind_it_makes() -> None:
    spec, problems = examined(
        f"{UNIT}Network=back.network\n[X-Network back.network]\nSubnet=10.1.0.0/24\nGateway=10.1.0.1\n"
        "Subnet=fd00::/64\nInternal=yes\nIPv6=yes\nInterfaceName=br9\nOptions=mtu=9000\n"
        "[X-Unit back.network]\nA=b\n"
    )
    assert problems == []
    assert spec.networks == ("systemd-back",)
    assert spec.made_networks == (
        NetworkSpec(
            name="systemd-back",
            subnets=(SubnetSpec(subnet="10.1.0.0/24", gateway="10.1.0.1"), SubnetSpec(subnet="fd00::/64")),
            internal=True,
            ipv6=True,
            options=(("mtu", "9000"), ("com.docker.network.bridge.name", "br9")),
        ),
    )


def test_each_instance_has_a_volume_of_its_own_where_the_file_is_a_template() -> None:
    text = f"{UNIT}Volume=more@.volume:/d\n[X-Fleet]\nOnMachineLoss=wait\n[X-Volume more@.volume]\n"
    for instance in ("1", "2"):
        spec = accept.read_kept(f"web@{instance}.service", text)
        assert spec == accept.read(f"web@{instance}.service", text)
        assert spec.container is not None
        assert spec.container.mounts[0].source == f"systemd-more-{instance}"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("Volume=data.volume:/d", "'data.volume' refers to another Quadlet file, which is not beside this one"),
        ("Network=a.network", "'a.network' refers to another Quadlet file, which is not beside this one"),
        ("[X-Volume d.volume]\nDriver=image\nImage=x", "'image' is podman's alone"),
        ("[X-Volume d.volume]\nType=ext4", "Type= without Device="),
        ("[X-Volume d.volume]\nUser=ada", "no whole number"),
        ("[X-Volume d.volume]\nVolumName=x", "unknown key 'VolumName' in [Volume]"),
        ("[X-Network n.network]\nSubnet=10.0.0.1/8", "no subnet"),
        ("[X-Network n.network]\nGateway=10.0.0.1", "1 Gateway= with 0 Subnet="),
        ("[X-Network n.network]\nDriver=overlay", "none of bridge, macvlan, ipvlan"),
        ("[X-Network n.network]\nDisableDNS=yes", "it has no effect"),
    ],
)
def test_what_is_wrong_with_it_is_said(lines: str, said: str) -> None:
    assert any(said in problem.message for problem in examined(f"{UNIT}{lines}\n")[1])


def test_the_host_that_a_volume_stands_for_is_asked_for() -> None:
    text = f"{UNIT}Volume=d.volume:/d\n[X-Volume d.volume]\nDevice=/srv/data\nType=none\nOptions=bind\n"
    assert accept.read("web.service", text).requirements.demands.mounts == ("/srv/data",)


def test_the_engine_is_asked_for_them_with_our_labels() -> None:
    owner = Owner(cluster="c", machine="m", machine_name="m")
    volume = VolumeSpec(name="v", options=(("type", "tmpfs"),), labels=(("a", "b"),))
    assert volume_body(owner, volume) == {
        "Name": "v",
        "Driver": "local",
        "DriverOpts": {"type": "tmpfs"},
        "Labels": {"a": "b", "unitfleet.cluster": "c", "unitfleet.machine": "m"},
    }
    subnets = (
        SubnetSpec(subnet="10.1.0.0/24", gateway="10.1.0.1"),
        SubnetSpec(subnet="fd00::/64", ip_range="fd00::/80"),
    )
    body = network_body(owner, NetworkSpec(name="n", subnets=subnets, ipam_driver="default", internal=True))
    assert body["IPAM"] == {
        "Driver": "default",
        "Config": [
            {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"},
            {"Subnet": "fd00::/64", "IPRange": "fd00::/80"},
        ],
    }
    assert (body["Driver"], body["Internal"], body["EnableIPv6"]) == ("bridge", True, False)
    assert "IPAM" not in network_body(owner, NetworkSpec(name="n"))


def test_a_unit_is_submitted_with_the_files_that_it_refers_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web.container").write_text(f"{UNIT}Volume=data.volume:/d\nVolume=/x:/y\n")
    Path("data.volume").write_text("# mine\n[Volume]\nVolumName=x\n[Install]\nWantedBy=a\n")
    Path("data.volume.d").mkdir()
    Path("data.volume.d/1.conf").write_text("[Volume]\nLabel=a=b\n")
    text = submitted(Path("web.container"), "web.service")
    assert "[X-Volume data.volume]\nVolumName=x\n[X-Install data.volume]\nWantedBy=a\n" in text
    assert text.endswith("[X-Volume data.volume]\nLabel=a=b\n")
    assert run(["lint", "web.container"]) == 1
    assert "data.volume:3:1: error: unknown key 'VolumName' in [Volume]" in capsys.readouterr().out
