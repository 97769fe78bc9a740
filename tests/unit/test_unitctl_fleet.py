"""`-o fleet` writes what fleetctl wrote: columns, tabs, short ids, `-`; held against fleetctl's own output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from unitctl import fleetctl
from unitctl.client import Api
from unitctl.failures import USAGE, Failure
from unitctl.fleetctl import Looks
from unitctl.render import BadField
from unitfleet.fleetapi import Machine, Option, State, Unit

TRANSCRIPT = Path(__file__).parents[2].parent / "shared" / "corpus" / "fleetctl-transcript.txt"

IDS = [f"{short}{'0' * 23}{number}" for number, short in enumerate(("0a1b2c3d", "1b2c3d4e", "2c3d4e5f"), 1)]
MACHINES = [
    Machine(id=IDS[0], primary_ip="10.0.0.1", metadata={"role": "web", "az": "a"}),
    Machine(id=IDS[1], primary_ip="10.0.0.2", metadata={"az": "b", "role": "web"}),
    Machine(id=IDS[2], primary_ip="10.0.0.3", metadata={"az": "c", "role": "db", "disk": "ssd"}),
]
AD = (
    Option(section="Unit", name="Description", value="Ad server %i"),
    Option(section="Service", name="ExecStart", value="/usr/bin/adserver --port=80%i"),
    Option(section="X-Fleet", name="Conflicts", value="adserver@*.service"),
)
GLOB = (
    Option(section="Service", name="ExecStart", value="/bin/g"),
    Option(section="X-Fleet", name="Global", value="true"),
    Option(section="X-Fleet", name="MachineMetadata", value="role=web"),
)
ECHO = "while true; do echo Hello, World!; sleep 1; done"
HELLO = (
    Option(section="Unit", name="Description", value="Hello World"),
    Option(section="Service", name="ExecStart", value=f'/bin/bash -c "{ECHO}"'),
)
AD_HASH, GLOB_HASH = "92f709b87036cf763d58c5ad834757fb4f6f5ac2", "524ab66a3705315bd625465322f9337751dfb884"


class Fleet:
    """Answers as the cluster of the transcript did after its first start of four units."""

    def fleet_machines(self) -> list[Machine]:
        return MACHINES

    def fleet_states(self) -> list[State]:
        return [state(f"adserver@{n}.service", machine, AD_HASH) for n, machine in zip("134", IDS, strict=True)]

    def fleet_units(self) -> list[Unit]:
        placed = [unit(f"adserver@{n}.service", AD, machine=m) for n, m in zip("134", IDS, strict=True)]
        return [
            unit("adserver@.service", AD, "inactive"),
            placed[0],
            unit("adserver@2.service", AD, "launched"),
            *placed[1:],
            unit("hello.service", HELLO, "inactive"),
        ]


def state(name: str, machine: str, hash: str) -> State:
    return State(
        name=name,
        machine_id=machine,
        hash=hash,
        systemd_load_state="loaded",
        systemd_active_state="active",
        systemd_sub_state="running",
    )


def unit(name: str, options: tuple[Option, ...], target: str = "launched", machine: str = "") -> Unit:
    current = "launched" if machine else "inactive"
    return Unit(name=name, options=options, desired_state=target, current_state=current, machine_id=machine)


@pytest.fixture
def api() -> Api:
    return cast(Api, Fleet())


def transcripts(command: str) -> Iterator[str]:
    """Yield what fleetctl wrote each time it was called so."""
    for block in re.split(r"^\$ ", TRANSCRIPT.read_text(), flags=re.MULTILINE)[1:]:
        called, _, told = block.partition("\n")
        if called == f"fleetctl {command}":
            yield "".join(f"{line[6:]}\n" for line in told.splitlines() if line.startswith("[out] "))


@pytest.mark.skipif(not TRANSCRIPT.exists(), reason="fleet's corpus is not beside the checkout")
@pytest.mark.parametrize(
    ("command", "write"),
    [
        ("list-units", lambda api: fleetctl.list_units(api, (), Looks())),
        ("list-unit-files", lambda api: fleetctl.list_unit_files(api, (), Looks())),
        (
            "list-unit-files --fields=unit,global,dstate,target,tmachine,state,hash,desc --full",
            lambda api: fleetctl.list_unit_files(
                api, (), Looks("unit,global,dstate,target,tmachine,state,hash,desc", full=True)
            ),
        ),
        (
            "list-units --fields=unit,load,active,sub,machine,hash --full",
            lambda api: fleetctl.list_units(api, (), Looks("unit,load,active,sub,machine,hash", full=True)),
        ),
        ("list-machines --fields=machine,ip", lambda api: fleetctl.list_machines(api, Looks("machine,ip"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_list_is_byte_for_byte_what_fleetctl_wrote(
    api: Api, command: str, write: object, capsys: pytest.CaptureFixture[str]
) -> None:
    write(api)  # type: ignore[operator]
    assert capsys.readouterr().out in set(transcripts(command))


def test_the_lists_have_fleetctls_columns(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    fleetctl.list_machines(api, Looks())
    assert capsys.readouterr().out.splitlines()[::3] == [
        "MACHINE\t\tIP\t\tMETADATA",
        "2c3d4e5f...\t10.0.0.3\taz=c,disk=ssd,role=db",
    ]
    fleetctl.list_units(api, (), Looks(legend=False))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "adserver@1.service\t0a1b2c3d.../10.0.0.1\tactive\trunning"
    fleetctl.list_unit_files(api, (), Looks("unit,hash,dstate,state,target"))
    assert capsys.readouterr().out.splitlines()[:3] == [
        "UNIT\t\t\tHASH\tDSTATE\t\tSTATE\t\tTARGET",
        "adserver@.service\t92f709b\tinactive\tinactive\t-",
        "adserver@1.service\t92f709b\tlaunched\tlaunched\t0a1b2c3d.../10.0.0.1",
    ]


def test_a_global_unit_has_a_target_and_no_state(capsys: pytest.CaptureFixture[str]) -> None:
    class Globals(Fleet):
        def fleet_units(self) -> list[Unit]:
            return [unit("glob.service", GLOB, "launched")]

    fields = "unit,hash,dstate,state,target,global,desc,tmachine"
    fleetctl.list_unit_files(cast(Api, Globals()), (), Looks(fields, legend=False))
    told = capsys.readouterr()
    assert told.out.split() == ["glob.service", GLOB_HASH[:7], "launched", "-", "global", "true", "-", "-"]
    assert "tmachine" in told.err and "deprecated" in told.err


def test_an_empty_list_has_its_titles_alone(capsys: pytest.CaptureFixture[str]) -> None:
    class Empty(Fleet):
        def fleet_states(self) -> list[State]:
            return []

    fleetctl.list_units(cast(Api, Empty()), (), Looks())
    assert capsys.readouterr().out == "UNIT\tMACHINE\tACTIVE\tSUB\n"
    fleetctl.list_units(cast(Api, Empty()), (), Looks(legend=False))
    assert capsys.readouterr().out == ""


def test_what_a_machine_tells_is_obeyed_by_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(Fleet):
        def fleet_machines(self) -> list[Machine]:
            return [Machine(id=IDS[0], metadata={"a": "\x1b[31m"})]

    fleetctl.list_machines(cast(Api, Odd()), Looks())
    assert capsys.readouterr().out.splitlines()[1] == "0a1b2c3d...\t-\ta=\\x1b[31m"


def test_an_unknown_field_and_full_ids_of_another_form_are_usage_errors(api: Api) -> None:
    with pytest.raises(BadField, match='cannot show field "zzz"') as caught:
        fleetctl.list_machines(api, Looks("machine,zzz"))
    assert caught.value.exit_code == USAGE and "machine, ip, metadata" in (caught.value.hint or "")
    with pytest.raises(Failure, match="-o fleet"):
        fleetctl.verify("table", full=True)
    fleetctl.verify("fleet", full=True)
