"""What may be typed: durations, unit names, and which text a unit is submitted with."""

from __future__ import annotations

import math
from pathlib import Path

import click
import pytest

from harness.api_stub import ApiServer, Fleet
from harness.api_views import TEXT, machine, unit
from unitctl.arguments import Duration, matching, registered, spread
from unitctl.client import Api
from unitctl.context import Context, parse_endpoint
from unitctl.machines import find_machine
from unitctl.resolve import resolve
from unitctl.transport import Transport
from unitfleet.errors import InvalidName, InvalidUnit, NotFound, Refused
from unitfleet.model import TargetState


def api(server: ApiServer) -> Api:
    return Api(Transport(Context(endpoints=(parse_endpoint(server.url),), source="test")))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("7", 7.0),
        ("0", 0.0),
        ("infinity", math.inf),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "2x", "1m soon"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_ranges_and_paths_become_names_in_order_and_once() -> None:
    assert spread(["units/a@<1..2>", "a@1..3", "a@{2..2}", "b"]) == ["a@1", "a@2", "a@3", "b"]


def test_a_glob_means_the_registered_instances_and_leaves_the_template(capsys: pytest.CaptureFixture[str]) -> None:
    views = [unit(name) for name in ("web@.service", "web@1.service", "web@10.service", "db.service")]
    with Fleet(*views) as fleet, ApiServer(fleet) as server:
        assert registered(api(server), ["web@*"]) == ["web@1.service", "web@10.service"]
        assert "web@.service" in capsys.readouterr().err
        assert registered(api(server), ["web@?", "new"]) == ["web@1.service", "new.service"]
        with pytest.raises(NotFound, match=r"web@z\*"):
            registered(api(server), ["web@z*"])
        with pytest.raises(NotFound) as caught:
            registered(api(server), ["web@.*"])
        assert "only a template" in (caught.value.hint or "")
        with pytest.raises(InvalidName, match="pattern"):
            registered(api(server), ["web[*"])


def test_a_list_is_narrowed_by_names_ranges_and_globs() -> None:
    views = [unit(name) for name in ("web@1.service", "web@2.service", "db.service")]
    assert [view.name for view in matching(views, ["db", "web@<1..1>"])] == ["web@1.service", "db.service"]
    assert len(matching(views, [])) == 3
    with pytest.raises(NotFound, match="web@3"):
        matching(views, ["web@3"])


def test_a_registered_unit_is_used_and_a_file_that_differs_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_text("[Service]\nExecStart=/bin/other\n")
    with Fleet(unit("a.service")) as fleet, ApiServer(fleet) as server:
        [source] = resolve(api(server), [str(tmp_path / "a.service")], {}, replace=False)
        assert source.text is None
        assert "--replace" in source.warning
        [source] = resolve(api(server), [str(tmp_path / "a.service")], {}, replace=True)
        assert source.text == "[Service]\nExecStart=/bin/other\n"
        (tmp_path / "a.service").write_text(TEXT)
        assert resolve(api(server), [str(tmp_path / "a")], {}, replace=False)[0].warning == ""


def test_an_instance_takes_its_file_then_its_registered_template_then_the_template_file(tmp_path: Path) -> None:
    (tmp_path / "web@.service").write_text("template file")
    (tmp_path / "web@1.service").write_text("own file")
    env = {"UNITCTL_UNITS": f"/nowhere:{tmp_path}"}
    with Fleet(unit("web@.service")) as fleet, ApiServer(fleet) as server:
        assert [source.text for source in resolve(api(server), ["web@<1..2>"], env, replace=False)] == [
            "own file",
            TEXT,
        ]
        fleet.forget("web@.service")
        assert resolve(api(server), ["web@2"], env, replace=False)[0].text == "template file"


def test_a_unit_on_its_way_out_is_submitted_anew(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_text("anew")
    with Fleet(unit("a.service", target=TargetState.DESTROYED)) as fleet, ApiServer(fleet) as server:
        assert resolve(api(server), [f"{tmp_path}/a"], {}, replace=False)[0].text == "anew"


def test_a_quadlet_file_is_its_service(tmp_path: Path) -> None:
    (tmp_path / "web.container").write_text("[Container]\nImage=x\n")
    with Fleet() as fleet, ApiServer(fleet) as server:
        for argument in ("web.container", "web", "web.service"):
            [source] = resolve(api(server), [f"{tmp_path}/{argument}"], {}, replace=False)
            assert (source.name, source.text) == ("web.service", "[Container]\nImage=x\n")


def test_a_unit_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with Fleet() as fleet, ApiServer(fleet) as server, pytest.raises(NotFound) as caught:
        resolve(api(server), ["web@1"], {"UNITCTL_UNITS": str(tmp_path)}, replace=False)
    assert caught.value.message == "cannot find unit web@1.service: neither registered nor a file here"
    assert str(tmp_path) in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (64 * 1024 + 1)], ids=["binary", "too large"])
def test_junk_is_not_sent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.service").write_bytes(content)
    with Fleet() as fleet, ApiServer(fleet) as server, pytest.raises(InvalidUnit, match="cannot read"):
        resolve(api(server), [f"{tmp_path}/a.service"], {}, replace=False)


def test_a_machine_is_found_by_name_id_or_unique_prefix() -> None:
    machines = [machine("m2"), machine("m1"), machine("m10")]
    assert find_machine(machines, "m1").name == "m1"
    assert find_machine(machines, "m2-01").name == "m2"
    with pytest.raises(Refused, match=r"m1 .*m10 .*m2 "):
        find_machine(machines, "m")
    with pytest.raises(NotFound) as caught:
        find_machine(machines, "x")
    assert "m2, m1, m10" in (caught.value.hint or "")
