"""What Quadlet would make of a file: the podman command line, the service around it, or a refusal."""

from __future__ import annotations

import pytest

from unitfleet.podman import files, service, text, words
from unitfleet.podman.files import Made, Source
from unitfleet.podman.service import Service
from unitfleet.podman.text import Refused
from unitfleet.quadlet_keys import KEYS

SIBLINGS = {
    "data.volume": Made("data-volume", "systemd-data"),
    "back.network": Made("back-network", "backend"),
    "web.container": Made("web", "systemd-web"),
    "app@.container": Made("app@", ""),
    "site.pod": Made("site-pod", "systemd-site"),
    "base.image": Made("base-image", "quay.io/base:1"),
}


def made(data: str, filename: str = "x.container", *, absent: tuple[str, ...] = ()) -> Service:
    source = Source(filename, "/etc/containers/systemd", text.parse(data), SIBLINGS)
    return service.generate(source, present=lambda path: path not in absent)


def run(lines: str, *, absent: tuple[str, ...] = ()) -> list[str]:
    return made(f"[Container]\nImage=busybox\n{lines}\n", absent=absent).start


def has(arguments: list[str], *wanted: str) -> bool:
    count = len(wanted)
    return any(tuple(arguments[at : at + count]) == wanted for at in range(len(arguments)))


def test_a_file_with_an_image_alone_is_this_command() -> None:
    plain = "/usr/bin/podman run --name systemd-%N --replace --rm --cgroups=split --sdnotify=conmon -d busybox"
    assert run("") == plain.split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("AddCapability=CAP_NET_ADMIN chown", "--cap-add cap_net_admin --cap-add chown"),
        ("AddDevice=/dev/fuse:r", "--device /dev/fuse:r"),
        ("Annotation=a=b", "--annotation a=b"),
        ("AppArmor=strict", "--security-opt apparmor=strict"),
        ("AutoUpdate=registry", "--label io.containers.autoupdate=registry"),
        ("CgroupsMode=no-conmon", "--cgroups no-conmon"),
        ("ContainerName=web", "--name web"),
        ("Entrypoint=", "--entrypoint="),
        ("Entrypoint=top", "--entrypoint top"),
        ("Environment=B=2 A=1", "--env A=1 --env B=2"),
        ("EnvironmentFile=./x.env", "--env-file /etc/containers/systemd/x.env"),
        ("EnvironmentFile=-/x.env", "--env-file -/x.env"),
        ("EnvironmentFile=%h/x.env", "--env-file %h/x.env"),
        ("EnvironmentHost=no", "--env-host=false"),
        ("ExposeHostPort=2000-3000/udp", "--expose 2000-3000/udp"),
        ("HealthCmd=/bin/sh -c \"echo 'hi'\"", "--health-cmd|/bin/sh -c \"echo 'hi'\""),
        ("HealthMaxLogSize=9", "--health-max-log-size 9"),
        ("HealthStartupSuccess=2", "--health-startup-success 2"),
        ("HttpProxy=no", "--http-proxy=false"),
        ("Image=base.image", "-d quay.io/base:1"),
        ("Label=b=2\nLabel=a=1", "--label a=1 --label b=2"),
        ("LogOpt=a=b c=d", "--log-opt a=b --log-opt c=d"),
        ("Mask=/proc/a:/proc/b", "--security-opt mask=/proc/a:/proc/b"),
        ("Mount=type=bind,src=./a,target=/b", "--mount type=bind,source=/etc/containers/systemd/a,target=/b"),
        ("Mount=type=volume,source=data.volume,dst=/b", "--mount type=volume,source=systemd-data,dst=/b"),
        ("Mount=type=tmpfs,dst=/b", "--mount type=tmpfs,dst=/b"),
        ("Network=back.network:ip=10.0.0.2", "--network backend:ip=10.0.0.2"),
        ("Network=web.container", "--network container:systemd-web"),
        ("NoNewPrivileges=on", "--security-opt=no-new-privileges"),
        ("Notify=healthy", "--sdnotify=healthy -d"),
        ("Notify=yes", "--sdnotify=container -d"),
        ("Pod=site.pod", "--pod systemd-site"),
        ('PodmanArgs="--foo" \\\n  --bar', "--foo --bar busybox"),
        ("PublishPort=${PORT}:80", "--publish ${PORT}:80"),
        ("ReadOnly=false", "--read-only=false"),
        ("RemapUsers=auto\nRemapUid=0:1:2\nRemapUidSize=9", "--userns auto:uidmapping=0:1:2,size=9"),
        ("RemapUsers=keep-id", "--userns keep-id"),
        ("RemapUsers=manual\nRemapGid=0:1:2", "--gidmap 0:1:2"),
        ("Secret=a,type=env b", "--secret a,type=env --secret b"),
        ("SecurityLabelLevel=s0:c1", "--security-opt label=level:s0:c1"),
        ("StopTimeout=20", "--stop-timeout 20"),
        ("Sysctl=a.b=1 c.d=2", "--sysctl a.b=1 --sysctl c.d=2"),
        ("Timezone=local", "--tz local"),
        ("Tmpfs=/t:size=1m", "--tmpfs /t:size=1m"),
        ("UIDMap=0:1:2", "--uidmap 0:1:2"),
        ("User=1\nGroup=2", "--user 1:2"),
        ("VolatileTmp=yes", "--tmpfs /tmp:rw,size=512M,mode=1777"),
        ("Volume=data.volume:/d:Z", "-v systemd-data:/d:Z"),
        ("Volume=/only", "-v /only"),
        ("Exec=\"/some file\" --a 'b c'", "busybox|/some file|--a|b c"),
    ],
)
def test_a_key_becomes_its_option(line: str, wanted: str) -> None:
    assert has(run(line), *(wanted.split("|") if "|" in wanted else wanted.split())), run(line)


def test_what_goes_before_the_verb_stands_there() -> None:
    assert run("GlobalArgs=--log-level=debug\nContainersConfModule=/m.conf")[1:4] == [
        *("--module=/m.conf", "--log-level=debug", "run")
    ]


def test_a_device_that_may_be_absent_is_left_out_when_it_is() -> None:
    assert has(run("AddDevice=-/dev/a"), "--device", "/dev/a")
    assert not has(run("AddDevice=-/dev/a", absent=("/dev/a",)), "--device")


def test_a_rootfs_takes_the_place_of_the_image() -> None:
    assert made("[Container]\nRootfs=/srv/root:O\nExec=sh\n").start[-3:] == ["--rootfs", "/srv/root:O", "sh"]


def test_an_instance_is_named_by_its_template_and_instance() -> None:
    assert has(made("[Container]\nImage=a\n", "x@1.container").start, "--name", "systemd-%p_%i")


def test_an_empty_assignment_drops_what_was_before_it() -> None:
    assert has(run("DNS=1.1.1.1\nDNS=\nDNS=9.9.9.9"), "--dns", "9.9.9.9")
    assert not has(run("DNS=1.1.1.1\nDNS=\nDNS=9.9.9.9"), "--dns", "1.1.1.1")


def test_a_comment_or_an_empty_line_does_not_end_a_continued_value() -> None:
    assert run("Exec=a \\\n# no\n\n  b")[-3:] == ["busybox", "a", "b"]
    assert run("Exec=a \\ \n  b")[-3:] == ["busybox", "a", "b"]  # nor does a blank behind the backslash


def test_a_value_with_an_escape_nobody_knows_is_left_out_and_said() -> None:
    generated = made("[Container]\nImage=busybox\nExec='test\\.com'\n")
    assert generated.start[-1] == "busybox"
    assert "unsupported escape char" in generated.text.warnings[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("[Container]\n", "no Image or Rootfs key specified"),
        ("[Container]\nImage=a\nRootfs=/b\n", "Image And Rootfs keys conflict"),
        (
            "[Container]\nImage=a\nBOGUS=b\n",
            "unsupported key 'BOGUS' in group 'Container' in /etc/containers/systemd/x",
        ),
        ("[Container]\nImage=a\nGroup=1\n", "invalid Group set without User"),
        ("[Container]\nImage=a\nExposeHostPort=http\n", "invalid port format 'http'"),
        ("[Container]\nImage=a\nVolume=no.volume:/x\n", "requested Quadlet source no.volume was not found"),
        ("[Container]\nImage=a\nNetwork=no.network\n", "requested Quadlet unit no.network was not found"),
        ("[Container]\nImage=a\nNetwork=app@.container\n", "cannot get the resource name of app@.container"),
        ("[Container]\nImage=a\nNetwork=web.container:x=1\n", "extra options are not supported"),
        ("[Container]\nImage=no.build\n", "requested Quadlet image no.build was not found"),
        ("[Container]\nImage=a\nPod=no.pod\n", "quadlet pod unit no.pod does not exist"),
        ("[Container]\nImage=a\nPod=plain\n", "pod plain is not Quadlet based"),
        ("[Container]\nImage=a\nMount=/home:/home\n", "source cannot be empty"),
        (
            "[Container]\nImage=a\nReloadCmd=x\nReloadSignal=HUP\n",
            "ReloadCmd and ReloadSignal are mutually exclusive",
        ),
        ("[Container]\nImage=a\nRemapUid=0:1:2\n", "UidMap set without RemapUsers"),
        ("[Container]\nImage=a\nRemapUsers=keep-id\nRemapGid=1 2\n", "only a single value for GID mapping"),
        ("[Container]\nImage=a\nRemapUsers=what\n", "unsupported RemapUsers option 'what'"),
        ("[Container]\nImage=a\nUserNS=auto\nRemapUsers=auto\n", "deprecated Remap keys"),
        ("[Container]\nImage=a\n[Service]\nKillMode=none\n", "invalid KillMode 'none'"),
        ("[Container]\nImage=a\n[Service]\nType=simple\n", "invalid service Type 'simple'"),
        ("[Unit]\nAfter=no.container\n[Container]\nImage=a\n", "unable to translate dependency for no.container"),
        ("[Quadlet]\nWhat=1\n[Container]\nImage=a\n", "unsupported key 'What' in group 'Quadlet'"),
        ("Image=a\n", "key file does not start with a group"),
        ("[Container]\nImage\n", "file contains line 2"),
    ],
)
def test_what_quadlet_refuses_is_refused_in_its_words(data: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        made(data)
    assert said in str(refused.value)


def test_the_service_around_it_is_quadlets() -> None:
    generated = made(
        "[Unit]\nAfter=data.volume b.service\n[Container]\nImage=a\nVolume=/h:/c\nReloadSignal=HUP\n"
    ).text
    assert generated.filename == "x.service"
    assert generated.all("Unit", "After") == ["network-online.target", "data-volume.service b.service"]
    assert generated.all("Unit", "RequiresMountsFor") == ["%t/containers", "/h"]
    assert generated.all("X-Container", "Image") == ["a"]
    assert generated.all("Service", "ExecStop") == ["/usr/bin/podman rm -v -f -i systemd-%N"]
    assert generated.all("Service", "ExecStopPost") == ["-/usr/bin/podman rm -v -f -i systemd-%N"]
    assert generated.all("Service", "ExecReload") == ["/usr/bin/podman kill --signal HUP systemd-%N"]
    assert [generated.text("Service", key) for key in ("KillMode", "Type", "NotifyAccess", "Delegate")] == [
        *("mixed", "notify", "all", "yes")
    ]


def test_a_oneshot_is_not_detached() -> None:
    assert not has(made("[Container]\nImage=a\n[Service]\nType=oneshot\n").start, "-d")


def test_a_network_is_created_with_its_subnets_in_step() -> None:
    data = "[Network]\nSubnet=10.0.0.0/24\nSubnet=10.1.0.0/24\nGateway=10.0.0.1\nInternal=yes\nOptions=mtu=9000\n"
    assert (
        made(data, "back.network").start[1:]
        == (
            "network create --ignore --internal --subnet 10.0.0.0/24 --gateway 10.0.0.1 --subnet 10.1.0.0/24 "
            "--opt mtu=9000 systemd-back"
        ).split()
    )
    with pytest.raises(Refused, match="gateway or range without subnet"):
        made("[Network]\nGateway=10.0.0.1\n", "back.network")
    kept = made("[Network]\nNetworkName=b\nNetworkDeleteOnStop=yes\n", "back.network").text
    assert kept.all("Service", "ExecStopPost") == ["/usr/bin/podman network rm b"]


def test_a_volume_is_created_with_its_options() -> None:
    data = "[Volume]\nDevice=/srv\nType=bind\nOptions=nodev\nUser=root\nGroup=11\nCopy=no\nLabel=a=b\nUID=7\n"
    assert (
        made(data, "data.volume").start[1:]
        == (
            "volume create --ignore --opt nocopy --opt device=/srv --opt type=bind --opt o=uid=0,gid=11,nodev "
            "--uid 7 --label a=b systemd-data"
        ).split()
    )
    image = made("[Volume]\nVolumeName=i\nDriver=image\nImage=base.image\n", "i.volume").start
    assert has(image, "--opt", "image=quay.io/base:1", "i")
    with pytest.raises(Refused, match="key Type can't be used without Device"):
        made("[Volume]\nType=ext4\n", "data.volume")


@pytest.mark.parametrize(
    ("filename", "data", "wanted"),
    [
        ("a.container", "[Container]\n", Made("a", "systemd-a")),
        ("a.container", "[Container]\nServiceName=b\n", Made("b", "systemd-b")),
        ("a.container", "[Container]\nContainerName=c\n", Made("a", "c")),
        ("a@.container", "[Container]\n", Made("a@", "")),
        ("a.volume", "[Volume]\n", Made("a-volume", "systemd-a")),
        ("a@.volume", "[Volume]\n", Made("a-volume@", "systemd-a-%i")),
        ("a@b.network", "[Network]\n", Made("a-network@b", "systemd-a-b")),
        ("a.network", "[Network]\nNetworkName=n\n", Made("a-network", "n")),
        ("a.pod", "[Pod]\n", Made("a-pod", "systemd-a")),
        ("a.image", "[Image]\nImage=i:1\n", Made("a-image", "i:1")),
        ("a.image", "[Image]\nImage=i:1\nImageTag=t\n", Made("a-image", "t")),
        ("a.build", "[Build]\nImageTag=t\nImageTag=u\n", Made("a-build", "t")),
    ],
)
def test_a_file_is_known_by_what_it_turns_into(filename: str, data: str, wanted: Made) -> None:
    assert files.made(filename, text.parse(data)) == wanted


def test_drop_in_folders_go_from_the_file_itself_to_its_kind() -> None:
    assert files.drop_in_folders("web.container") == ["web.container.d", "container.d"]
    assert files.drop_in_folders("a-b-c@i-j.container") == [
        *("a-b-c@i-j.container.d", "a-b-c@.container.d", "a-b-@.container.d", "a-b-.container.d"),
        *("a-@.container.d", "a-.container.d", "container.d"),
    ]


@pytest.mark.parametrize(
    "line", [["a", "b c", 'd"e', "f\\g", "h\ti\n", "\x01", "it's", "é"], ["/usr/bin/podman", "run", "%N"]]
)
def test_words_written_as_a_line_are_read_as_the_same_words(line: list[str]) -> None:
    assert words.arguments(words.joined(line)) == line


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (r"a\x41\101\u00e9 'b c' d\"e", ["aAAé", "b c", 'd"e']),
        ("'open to the end", ["open to the end"]),
        ('a "" b', ["a"]),  # an empty word ends it
        (r"a\sb", ["a b"]),
    ],
)
def test_words_with_escapes(line: str, found: list[str]) -> None:
    assert words.arguments(line) == found


def test_every_key_of_the_table_is_one_that_quadlet_takes() -> None:
    assert {group: len(keys) for group, keys in KEYS.items()} == {"Container": 94, "Volume": 16, "Network": 18}
