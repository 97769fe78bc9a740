"""What is accepted, what is refused and with which words; and the unit files that carry their expectations."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from unitfleet import accept, names, requirements
from unitfleet.errors import InvalidName, InvalidUnit
from unitfleet.model import OnLoss, Requirements
from unitfleet.spec import UnitSpec

FILES = Path(__file__).parent / "unitfiles"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "fleet"

SERVICE = "[Service]\nExecStart=/bin/x\n"
CONTAINER = "[Container]\nImage=busybox:1\n"


def wants(section: str, *, name: str = "web@1.service", base: str = SERVICE) -> Requirements:
    return accept.read(name, f"{base}[X-Fleet]\n{section}\n").requirements


def refusal(text: str, *, name: str = "web@1.service", filename: str | None = None) -> tuple[str, ...]:
    with pytest.raises(InvalidUnit) as caught:
        accept.read(name, text, filename=filename)
    return caught.value.problems


def warnings(text: str, *, name: str = "web@1.service") -> tuple[str, ...]:
    return accept.read(name, text).warnings


# What a unit asks of a machine


def test_fleets_keys_become_requirements() -> None:
    found = wants('MachineMetadata="zone=a" "zone=b"\nMachineOf=%p.socket\nConflicts=%p@*.service x.service')
    assert found.unit == "web@1.service"
    assert found.metadata == (("zone", ("a", "b")),)
    assert found.machine_of == ("web.socket",)
    assert found.conflicts == ("web@*.service", "x.service")
    assert wants("MachineID=m1").machine_id == "m1"
    assert wants("Global=true").is_global
    assert wants("Replaces=a@*.service").replaces == ("a@*.service",)


def test_our_keys_become_requirements() -> None:
    found = wants("CPU=0.5\nMemory=512M\nSpread=zone\nOnMachineLoss=wait:30m")
    assert (found.cpu, found.memory, found.spread) == (0.5, 512 << 20, "zone")
    assert (found.on_loss, found.on_loss_after_s) == (OnLoss.WAIT, 1800.0)
    assert wants("OnMachineLoss=wait").on_loss_after_s is None
    assert wants("").on_loss is OnLoss.MOVE


def test_a_containers_ports_name_and_memory_limit_are_asked_of_its_machine() -> None:
    text = (
        CONTAINER + "PublishPort=808%i:80\nPublishPort=53:53/udp\nPublishPort=90\nContainerName=w%i\nMemory=1g\n"
    )
    found = accept.read("web@1.service", text).requirements
    assert found.host_ports == ((8081, "tcp"), (53, "udp"))
    assert (found.container_name, found.memory, found.drivers) == ("w1", 1 << 30, ("docker",))
    assert wants("Memory=2G", base=text).memory == 2 << 30


def test_a_oneshot_is_known_as_such() -> None:
    assert accept.read("a.service", "[Service]\nType=oneshot\nExecStart=/bin/x\n").requirements.oneshot
    assert not accept.read("a.service", CONTAINER).requirements.oneshot
    assert accept.read("a.service", CONTAINER + "[Service]\nType=oneshot\n").requirements.oneshot


# Which drivers can run it


@pytest.mark.parametrize(
    ("name", "text", "drivers"),
    [
        ("a.service", SERVICE, ("systemd", "process")),
        ("a.service", CONTAINER, ("docker",)),
        ("a.timer", "[Timer]\nOnCalendar=daily\n", ("systemd",)),
        ("a.mount", "[Mount]\nWhat=/dev/x\nWhere=/a\n", ("systemd",)),
        ("a.service", SERVICE + "Type=forking\nPIDFile=/run/x\n", ("systemd",)),
        ("a.service", SERVICE + "PrivateTmp=yes\n", ("systemd",)),
        ("a.service", SERVICE + "MemoryMax=1G\n", ("systemd", "process")),
        ("a.service", SERVICE + "TasksMax=10%\n", ("systemd",)),
        (
            "a.service",
            SERVICE + "PrivateTmp=no\nStandardOutput=journal\nSyslogIdentifier=x\n",
            ("systemd", "process"),
        ),
        ("a.service", "[Unit]\nConditionPathExists=/x\n" + SERVICE, ("systemd",)),
        ("a.service", "[Unit]\nAfter=docker.service\n" + SERVICE, ("systemd", "process")),
    ],
)
def test_a_unit_names_the_drivers_that_can_run_it(name: str, text: str, drivers: tuple[str, ...]) -> None:
    assert accept.read(name, text).requirements.drivers == drivers


def test_what_only_systemd_can_do_is_named_with_its_line() -> None:
    found = warnings(SERVICE + "Type=forking\nPrivateTmp=yes\n")
    assert found[0].startswith("web@1.service:3: Type=forking needs the systemd driver")
    assert found[1].startswith("web@1.service:4: PrivateTmp= needs the systemd driver")


# What is refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "MachineMetadata=a=b c=d",
            "4: MachineMetadata=a=b c=d would be one value with blanks in it (write Machine",
        ),
        ("MachineMetadata=a=b c=d", 'MachineMetadata="a=b" "c=d")'),
        ("MachineMetadata==foo=", "is no pair"),
        ("MachineMetadata=foo", "is no pair"),
        ("MachineMetadata=a=b=c", "is no pair"),
        ("MachineMetadata='a=b'", 'write MachineMetadata="a=b"'),
        ("MachineMetadata=a = b", "write MachineMetadata=a=b"),
        ("MachineMetadata=", "is empty"),
        ("MachineOf=a.service b.service", 'write MachineOf="a.service" "b.service"'),
        ("MachineOf=redis", "did you mean redis.service?"),
        ("MachineOf=redis@*.service", "exact names, no patterns"),
        ("Conflicts=[", "is no pattern"),
        ("Replaces=a[", "is no pattern"),
        ("Replaces=a.service b.service", 'write Replaces="a.service" "b.service"'),
        (f"Conflicts={'a*' * 300}", "at most 512 characters"),
        ("Global=maybe", "neither true nor false"),
        ("MachineID=", "is empty"),
        ("MachineID=a b", "is no machine's id"),
        ("MachineID=a\nMachineID=b", "second machine"),
        ("MachineID=a\nGlobal=true", "MachineID= cannot be used with Global="),
        ("Global=true\nMachineOf=a.service", "Global= cannot be used with MachineOf="),
        ("CPU=lots", "no number of cores"),
        ("CPU=0", "no number of cores"),
        ("CPU=5000", "no number of cores"),
        ("Memory=512", "not from 1M to 64T"),
        ("Memory=100T", "not from 1M to 64T"),
        ("Spread=a b", "no metadata key"),
        ("OnMachineLoss=wiat", "did you mean wait?"),
        ("OnMachineLoss=wait:soon", "no time span"),
        ("OnMachineLoss=move:5m", "none of move, wait, wait:30m"),
        ("Machineof=a.service", "did you mean MachineOf?"),
        ("global=true", "did you mean Global?"),
        ("Colour=red", "the keys are Avoid, Burst, CPU,"),
        ("Disk=100", "not from 1M to 1P"),
        ("Priority=1001", "no whole number from 0 to 1000"),
        ("Priority=-1", "no whole number from 0 to 1000"),
        ("Priority=high", "no whole number from 0 to 1000"),
        ("Prefer=ssd", "is no pair"),
        ("Prefer=disk!=ssd", "only MachineMetadata= takes !="),
        ("Prefer=disk=ssd zone=a", 'write Prefer="disk=ssd" "zone=a"'),
        ("Avoid=[x", "is no pattern"),
        ("MachineMetadata=!=eu", "is no pair"),
        ("MachineMetadata=region!=", "is no pair"),
        ("MachineMetadata=region != eu", "write MachineMetadata=region!=eu"),
        ("MachineMetadata=region=eu\nMachineMetadata=region!=eu", "no machine can have region=eu and not have it"),
        ("Priority=7\nGlobal=true", "Priority= cannot be used with Global="),
        ("Egress=10MB", "write 80M"),
        ("Singleton=yes", "Singleton=: 'yes' is not strict: write Singleton=strict"),
        ("Singleton=strict\nGlobal=true", "Singleton=strict cannot be used with Global="),
        ("Conflicts=a.service \\\nb.service", "several lines"),
        ("# c \\\nGlobal=true", "read in two ways"),
    ],
)
def test_a_wrong_line_in_x_fleet_is_refused_with_the_right_form(line: str, said: str) -> None:
    problems = refusal(f"{SERVICE}[X-Fleet]\n{line}\n")
    assert any(said in problem for problem in problems), problems


def test_where_a_unit_would_rather_be_and_what_it_keeps_off_is_read() -> None:
    lines = "Prefer=disk=ssd\nPrefer=zone=a\nPrefer=zone=b\nAvoid=batch-* %p@*\nAvoid=log.service\nPriority=100"
    wants = accept.read("web@1.service", f"{SERVICE}[X-Fleet]\n{lines}\nDisk=10G\n").requirements
    assert wants.prefer == (("disk", ("ssd",)), ("zone", ("a", "b")))
    assert wants.avoid == ("batch-*", "web@*", "log.service")
    assert (wants.priority, wants.disk) == (100, 10 * 1024**3)
    taken_back = accept.read(
        "web@1.service", f"{SERVICE}[X-Fleet]\n{lines}\nPrefer=\nAvoid=\nPriority=\n"
    ).requirements
    assert (taken_back.prefer, taken_back.avoid, taken_back.priority) == ((), (), 0)


def test_metadata_that_a_machine_must_not_have_is_told_from_what_it_must() -> None:
    lines = "MachineMetadata=region!=eu\nMachineMetadata=region!=us\nMachineMetadata=disk=ssd"
    wants = accept.read("web@1.service", f"{SERVICE}[X-Fleet]\n{lines}\n").requirements
    assert wants.metadata == (("disk", ("ssd",)),)
    assert wants.metadata_not == (("region", ("eu", "us")),)


@pytest.mark.parametrize("key", ["Isolation"])
def test_a_key_of_a_later_version_is_refused_by_name(key: str) -> None:
    assert refusal(f"{SERVICE}[X-Fleet]\n{key}=1\n")[0].startswith(f"web@1.service:4: {key}= is not supported")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a [Service] nor a [Container] section"),
        ("[Unit]\nDescription=x\n", "neither a [Service] nor a [Container] section"),
        (CONTAINER + "[Service]\nExecStart=/bin/x\n", "does not go with [Container]"),
        (CONTAINER + "[Service]\nUser=x\n", "not supported beside [Container]"),
        (CONTAINER + "[Service]\nType=forking\n", "not supported beside [Container]"),
        (CONTAINER + "[Service]\nPrivateTmp=yes\n", "not supported beside [Container]"),
        (CONTAINER + "[Service]\nSendSIGKILL=no\n", "the Docker Engine kills what has not ended in time"),
        (CONTAINER + "[Service]\nSendSIGKILL=0\n", "the Docker Engine kills what has not ended in time"),
        (CONTAINER + "[Service]\nSendSIGKILL=perhaps\n", "yes or no"),
        (CONTAINER + "Notify=healthy\nHealthCmd=none\n", "waits for the check that HealthCmd=none switches off"),
        (CONTAINER + "[Unit]\nConditionHost=x\n", "not supported beside [Container]"),
        (CONTAINER + "Imaeg=x\n", "did you mean Image?"),
        (CONTAINER + "[Pod]\nPodName=x\n", "[Pod] is not supported by this version"),
        (SERVICE + "a line of its own\n", "is no assignment"),
        (SERVICE + "[Unit\n", "invalid section header"),
        ("[Service]\nExecStart=/bin/x\0\n", "web@1.service:2: control character '\\x00'"),
        ("[Service]\nExecStart=/bin/\x1bx\n", "control character"),
        ("[Service]\nExecStart=/bin/x " + "y" * 65536, "at most 65536"),
        ("\x7fELF\x02\x01", "control character"),
    ],
)
def test_a_text_that_can_not_run_is_refused(text: str, said: str) -> None:
    problems = refusal(text)
    assert any(said in problem for problem in problems), problems


def test_a_broken_header_is_told_before_the_section_that_is_missing_for_it() -> None:
    first, second = refusal("[Service\nExecStart=/bin/x\n")
    assert "web@1.service:1: invalid section header" in first
    assert "neither a [Service] nor a [Container]" in second


def test_every_problem_is_listed_in_order_of_its_line_and_the_first_stands_in_the_message() -> None:
    text = "[Service]\nRestart=alway\nExecStart=./x\n[X-Fleet]\nCPU=lots\nGlobl=true\n"
    with pytest.raises(InvalidUnit) as caught:
        accept.read("a.service", text, filename="units/a.service")
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"units/a.service:{line}" for line in (2, 3, 5, 6)
    ]
    assert caught.value.message.startswith("cannot accept unit a.service: units/a.service:2: Restart=")
    assert caught.value.message.endswith("(and 3 more)")


def test_a_bad_name_is_refused_before_the_text_is_read() -> None:
    with pytest.raises(InvalidName):
        accept.read("a/b.service", SERVICE)


def test_a_container_file_needs_its_section() -> None:
    assert "no [Container] section" in refusal(SERVICE, filename="web@.container")[0]


def test_a_socket_unit_needs_its_own_section() -> None:
    assert "no [Socket] section" in refusal("[Unit]\nDescription=x\n", name="a.socket")[0]


# What is only said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SERVICE + "ExecStrat=/y\n", "unknown key 'ExecStrat' in [Service] (did you mean ExecStart?)"),
        (SERVICE + "[X-fleet]\nGlobal=true\n", "[X-fleet] is not [X-Fleet]"),
        (
            SERVICE + "[Instal]\nWantedBy=x\n",
            "[Instal] is ignored: no section of a service unit (did you mean Install",
        ),
        ("Wants=a\n" + SERVICE, "stands before any section"),
        ("[Unit]\nBindsTo=redis.service\n" + SERVICE, "BindsTo=: only the systemd driver"),
        (CONTAINER + "Volume=data:/data\n", "write OnMachineLoss=wait"),
        (CONTAINER + "Exec=sh -c server\n", "process 1 of the container"),
        (SERVICE + "[X-Fleet]\nConflicts=redis\n", "did you mean redis.service?"),
        (SERVICE + "[X-Fleet]\nConflicts=a@[!1].service\n", "write [^…]"),
        ("[Service]\nKillMode=process\nExecStart=/bin/sh -c 'a; b'\n", "gets the stop signal alone"),
    ],
)
def test_what_does_not_stop_us_is_a_warning(text: str, said: str) -> None:
    found = warnings(text)
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize(
    "text",
    [
        CONTAINER + "Volume=data:/data\n[X-Fleet]\nOnMachineLoss=move\n",
        CONTAINER + "Volume=/etc/localtime:/etc/localtime:ro\n",
        "[Unit]\nAfter=network-online.target docker.service\n" + SERVICE,
        SERVICE + "[X-Other]\nA=b\n",
        "[Service]\nExecStart=/bin/sh -c 'a; b'\n",
    ],
)
def test_an_ordinary_unit_gets_no_warning(text: str) -> None:
    assert warnings(text) == ()


# Templates, hosts, and the corpus


def test_a_template_is_taken_although_its_instance_is_still_open() -> None:
    text = f"{CONTAINER}PublishPort=%i:80\n[X-Fleet]\nCPU=%i\nMachineMetadata=rack=%i\n"
    assert accept.read("web@.service", text).requirements.unit == "web@.service"
    assert accept.read("web@2.service", text).requirements.metadata == (("rack", ("2",)),)
    assert "PublishPort=" in refusal(text, name="web@x.service")[0]


def test_a_template_is_refused_for_what_no_instance_can_mend() -> None:
    assert "CPU=" in refusal(f"{SERVICE}[X-Fleet]\nCPU=lots\n", name="web@.service")[0]


def test_what_only_the_host_knows_is_filled_in_there() -> None:
    text = CONTAINER + "HostName=%p-%H\nExec=serve %H\n"
    on_master = accept.read("web@1.service", text)
    on_machine = accept.read("web@1.service", text, host={"H": "node-a"})
    assert on_master.container is not None and on_machine.container is not None
    assert on_master.container.exec == ("serve", "%H")
    assert (on_machine.container.hostname, on_machine.container.exec) == ("web-node-a", ("serve", "node-a"))
    assert on_master.requirements == on_machine.requirements


def test_install_and_description_are_kept() -> None:
    text = f"[Unit]\nDescription=Web %i\n{SERVICE}[Install]\nWantedBy=multi-user.target a.target\n"
    spec = accept.read("web@1.service", text)
    assert spec.description == "Web 1"
    assert spec.install == ("WantedBy=multi-user.target", "WantedBy=a.target")


def test_a_unit_spec_goes_through_json_unharmed() -> None:
    text = CONTAINER + "Volume=/a:/b\nUlimit=nofile=1\n[X-Fleet]\nMachineMetadata=a=b\nOnMachineLoss=wait\n"
    spec = accept.read("web@1.service", text)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=UnitSpec) == spec


@pytest.mark.parametrize("path", sorted(FILES.glob("*.*")), ids=lambda path: path.name)
def test_unit_files_hold_what_they_expect(path: Path) -> None:
    """Each `## expect:` line is a path into the UnitSpec and its JSON, or `refused`/`warned` and words of it."""
    text = path.read_text()
    expectations = [line[11:].strip() for line in text.splitlines() if line.startswith("## expect:")]
    assert expectations
    name = names.complete(path.name).replace("@.", "@3.")
    try:
        spec = msgspec.to_builtins(accept.read(name, text, filename=path.name))
        problems: tuple[str, ...] = ()
    except InvalidUnit as error:
        spec, problems = None, error.problems
    if not any(line.startswith("refused") for line in expectations):
        assert problems == ()
    for line in expectations:
        key, _, wanted = line.partition(" ")
        if key == "refused":
            assert any(wanted in problem for problem in problems), (wanted, problems)
        elif key == "warned":
            assert spec is not None and any(wanted in warning for warning in spec["warnings"]), spec["warnings"]
        elif key == "quiet":
            assert spec is not None and spec["warnings"] == ()
        else:
            found = spec
            for step in key.split("."):
                found = found[int(step)] if step.isdigit() else found[step]
            assert msgspec.json.decode(msgspec.json.encode(found)) == msgspec.json.decode(wanted), key


@pytest.mark.skipif(not CORPUS.exists(), reason="fleet's corpus is not beside the checkout")
def test_every_real_fleet_unit_is_read_or_refused_in_little_time() -> None:
    files = sorted(path for path in CORPUS.rglob("*") if path.is_file())
    refused = []
    begun = time.perf_counter()
    for path in files:
        name = names.complete(path.name)
        text = path.read_bytes().decode("utf-8", "replace")
        try:
            accept.read(name, text, filename=path.name)
            accept.read(name.replace("@.", "@7."), text, filename=path.name)
        except InvalidUnit as error:
            refused.append((path.name, error.problems))
    assert time.perf_counter() - begun < 20
    assert len(files) == 289
    assert [path for path, _ in refused] == ["registrar.service"]  # a line without '=', which fleet refuses too


def test_a_machine_id_that_no_machine_can_have_is_told_and_taken_as_fleet_takes_it() -> None:
    text = "[Service]\nExecStart=/bin/ad\n[X-Fleet]\nMachineID=<ID>\n"
    assert accept.read("web.service", text).requirements.machine_id == "<ID>"
    assert accept.read("web.service", text).warnings == (
        "web.service:4: MachineID=<ID> is no machine's id: the unit would never be placed "
        "(write an id that unitctl list-machines -o wide shows)",
    )


def test_a_slip_in_the_key_that_says_what_to_run_is_named_where_nothing_else_does() -> None:
    (said,) = refusal("[Service]\nExecStrat=/bin/ad\n")
    assert "ExecStrat= in line 2 is unknown: did you mean ExecStart=?" in said
    (plain,) = refusal("[Service]\nExecStartPre=/bin/ad\n")
    assert "say what to run: ExecStart=" in plain


# What came from a client of fleet's

AS_FLEET = f"{accept.AS_FLEET}\n{SERVICE}[X-Fleet]\n"


def test_a_text_from_fleets_own_client_is_taken_with_what_fleet_ignored() -> None:
    text = AS_FLEET + "Bogus=1\nMachineMetadata=a=b c=d\nMachineMetadata=zone=a\nIsolation=keep\n"
    found = accept.read("web.service", text)
    assert found.requirements.metadata == (("zone", ("a",)),)
    ignored = accept.ignored("web.service", text)
    assert [line.split(" ")[0] for line in ignored] == [f"web.service:{n}:" for n in (5, 6, 8)]
    assert set(ignored) <= set(found.warnings) and "unknown key 'Bogus'" in ignored[0]
    assert len(refusal(text.replace(accept.AS_FLEET, "# any other comment"))) == 3


def test_a_pin_to_no_machine_stays_one_where_fleets_reading_counts() -> None:
    assert accept.read("web.service", f"{AS_FLEET}MachineID=\n").requirements.machine_id == requirements.NO_MACHINE
    with pytest.raises(InvalidName):
        names.validate_machine_id(requirements.NO_MACHINE)


def test_nothing_is_ignored_of_a_text_without_that_line_or_without_fault() -> None:
    assert accept.ignored("web.service", SERVICE) == accept.ignored("web.service", AS_FLEET) == ()
    with pytest.raises(InvalidUnit):
        accept.read("web.service", f"{SERVICE}[X-Fleet]\n{accept.AS_FLEET}\nBogus=1\n")


@pytest.mark.parametrize(
    "text",
    [
        f"{AS_FLEET}Singleton=strict\nGlobal=true\n",
        f"{AS_FLEET}Conflicts={'x' * 600}\n",
        f"{accept.AS_FLEET}\n[Service]\n",
        f"{accept.AS_FLEET}\n{CONTAINER}Bogus=1\n",
    ],
    ids=["a promise that can't be kept", "a pattern without bound", "nothing to run", "another section's key"],
)
def test_what_no_reading_can_carry_is_refused_of_such_a_text_too(text: str) -> None:
    assert refusal(text)
