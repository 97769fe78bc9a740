"""What fleet's own server answered, request by request, ours answers; where it differs, a list says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from harness.api import TOKEN, Api, an_api
from harness.builders import Built, Piece, a_machine, a_placement, a_record, a_unit
from unit_master.api.fleet.wanted import text_of
from unitfleet import codec, keys
from unitfleet.fleetapi import Option
from unitfleet.model import CopyPhase, Presence, RosterEntry, TargetState, UnitState

TRANSCRIPT = Path(__file__).parents[2].parent / "shared" / "corpus" / "fleet-api-transcript.txt"

pytestmark = pytest.mark.skipif(not TRANSCRIPT.exists(), reason="fleet's corpus is not beside the checkout")

M1, M2, M3 = (f"{short}{'0' * 23}{number}" for number, short in enumerate(("0a1b2c3d", "1b2c3d4e", "2c3d4e5f"), 1))

_CURL = re.compile(
    r"curl (?:-X (?P<method>\w+) )?(?:-H Content-Type: (?P<type>\S+) )?(?:-d (?P<body>.+) )?"
    r"http://127\.0\.0\.1:31001(?P<path>\S*)"
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what fleet answered: status 0 when it broke down."""

    method: str
    path: str
    type: str
    body: str
    status: int
    told: str

    @property
    def asked(self) -> str:
        return f"{self.method} {self.path} {self.body}".rstrip()


OURS = {
    ("PUT /fleet/v1/units/foo.service", '{"desiredState":"zzz"}'): (400, "invalid desiredState"),
    ("PUT /fleet/v1/units/foo.service", "garbage"): (400, "unable to decode body: "),
    ("GET /fleet/v1/state/none.service", ""): (404, "unit does not exist"),
    ("GET /", ""): (404, ""),
}
"""Where ours differs whatever went before: a state that poisoned the unit, the words of Go's JSON reader, a
breakdown, and the root, which is not of fleet's API here."""

AFTER_POISON = {
    "GET /fleet/v1/units/foo.service": [(200, "foo.service")],
    "PUT /fleet/v1/units/foo.service {}": [(409, "must provide DesiredState")],
    "DELETE /fleet/v1/units/foo.service": [(204, ""), (404, "unit does not exist")],
}
"""What ours answers where fleet could only say 500 any more."""

STRING = '"value":"bar"}]'
"""A value as fleet's page has it, which its code refused."""


def exchanges() -> Iterator[Exchange]:
    for block in re.split(r"^\$ ", TRANSCRIPT.read_text(), flags=re.MULTILINE)[1:]:
        called, _, answered = block.partition("\n")
        found = _CURL.fullmatch(called)
        if found is None:
            assert "/discovery" in called, called
            continue
        lines = [line.strip() for line in answered.strip("\n").splitlines()]
        status = int(lines[0].split()[1]) if lines and lines[0] else 0
        asked = found.groupdict(default="")
        # curl names a form as the type of a body of which nothing was said
        kind = asked["type"] or ("application/x-www-form-urlencoded" if asked["body"] else "")
        yield Exchange(
            asked["method"] or "GET", asked["path"], kind, asked["body"], status, lines[-1] if status else ""
        )


def as_seen(unit: str, machine: str, text_of_copy: str, incarnation: str, *, failed: bool = False) -> Built:
    """Build what an agent tells of a copy."""
    state = UnitState(
        unit=unit,
        machine=machine,
        incarnation=incarnation,
        epoch=1,
        restart=0,
        spec=text_of_copy,
        phase=CopyPhase.FAILED if failed else CopyPhase.RUNNING,
        active="failed" if failed else "active",
        sub="failed" if failed else "running",
    )
    return a_record(keys.state(machine, unit), state)


def a_host(number: int, id: str, metadata: dict[str, str]) -> Built:
    """Build a machine at the address that it had there."""
    pieces: list[Piece] = []
    for key, value in a_machine(f"m{number}", id=id, metadata=metadata).pieces:
        kind: type[Presence] | type[RosterEntry] = Presence if key == keys.presence(id) else RosterEntry
        there = msgspec.structs.replace(codec.decode(value, kind), address=f"10.0.0.{number}")
        pieces += a_record(key, there).pieces
    return Built(tuple(pieces))


def service(*lines: tuple[str, str, str]) -> tuple[Option, ...]:
    return tuple(Option(section=section, name=name, value=value) for section, name, value in lines)


def the_cluster() -> list[Built]:
    """Build the cluster that the transcript begins with."""
    ad = service(
        ("Unit", "Description", "Ad server %i"),
        ("Service", "ExecStart", "/usr/bin/adserver --port=80%i"),
        ("X-Fleet", "Conflicts", "adserver@*.service"),
    )
    everywhere = service(
        ("Service", "ExecStart", "/bin/g"),
        ("X-Fleet", "Global", "true"),
        ("X-Fleet", "MachineMetadata", "role=web"),
    )
    fails = service(("Service", "ExecStart", "/bin/f"))
    nowhere = (*fails, *service(("X-Fleet", "MachineMetadata", "role=nope")))
    bogus = (*fails, *service(("X-Fleet", "Bogus", "1")))
    built: list[Built] = [
        a_host(1, M1, {"az": "a", "role": "web"}),
        a_host(2, M2, {"az": "b", "role": "web"}),
        a_host(3, M3, {"az": "c", "disk": "ssd", "role": "db"}),
    ]
    for name, options, target, places in (
        ("adserver@.service", ad, TargetState.INACTIVE, ()),
        ("adserver@3.service", ad, TargetState.LAUNCHED, (M2,)),
        ("bogus.service", bogus, TargetState.INACTIVE, ()),
        ("failer.service", fails, TargetState.LAUNCHED, (M1,)),
        ("glob.service", everywhere, TargetState.LAUNCHED, (M1, M2)),
        ("nowhere.service", nowhere, TargetState.LAUNCHED, ()),
    ):
        unit = a_unit(name, text=text_of(name, options), target=target)
        built.append(unit)
        for machine in places:
            failed = name == "failer.service"
            seen = as_seen(name, machine, unit.unit.spec, unit.unit.incarnation, failed=failed)
            built += [a_placement(unit, machine), seen]
    return built


async def ask(api: Api, exchange: Exchange) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Content-Type": exchange.type} if exchange.type else {})
    body = exchange.body.encode() or None
    async with api.client.request(exchange.method, exchange.path, data=body, headers=headers) as response:
        return response.status, await response.text()


async def test_every_request_is_answered_as_fleet_answered_it() -> None:
    wrong, differing = [], 0
    poisoned = {asked: list(told) for asked, told in AFTER_POISON.items()}
    async with an_api(built=the_cluster()) as api:
        for exchange in exchanges():
            status, told = await ask(api, exchange)
            # fleet told no state of a global unit; ours tells the one that it has
            theirs = exchange.told.replace(
                '{"currentState":"inactive","desiredState":"launched","name":"glob.service"',
                '{"currentState":"launched","desiredState":"launched","name":"glob.service"',
            )
            if (status, told) == (exchange.status, theirs if theirs.startswith("{") else ""):
                continue
            differing += 1
            expected = OURS.get((f"{exchange.method} {exchange.path}", exchange.body))
            if exchange.status == 500:
                expected = poisoned[exchange.asked].pop(0)
            elif exchange.method == "PATCH" and exchange.body.endswith(STRING):
                expected = (204, "")
            if expected is None or status != expected[0] or expected[1] not in told:
                wrong.append((exchange.asked, (status, told), (exchange.status, exchange.told)))
    assert wrong == []
    assert differing == len(OURS) + 4 + 1
