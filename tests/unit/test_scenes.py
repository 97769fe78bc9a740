"""Kept copies: which have to go, what their names say, and that no secret is in their records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from unit_agent.drivers.docker_remains import remains_of, scene_name, scene_of
from unit_agent.drivers.process import without_values
from unit_agent.encoding import encode_name
from unit_agent.scenes.cap import over
from unitfleet.api import Scene

MIB = 1 << 20


def a_scene(number: int, unit: str = "", *, in_place: bool = False, size: int = MIB) -> Scene:
    return Scene(
        id=f"{number:012x}",
        unit=unit or f"u{number}.service",
        driver="docker",
        copy_id=f"c{number}",
        at=float(number),
        in_place=in_place,
        size=size,
    )


SCENES = some.lists(
    some.builds(
        a_scene,
        some.integers(1, 10_000),
        some.sampled_from(["", "a.service", "b.service", "c.service"]),
        in_place=some.booleans(),
        size=some.integers(0, 5 * MIB),
    ),
    max_size=12,
    unique_by=lambda scene: scene.id,
)


@given(SCENES, some.integers(0, 5), some.integers(0, 10 * MIB))
def test_what_is_left_keeps_to_every_cap_and_nothing_in_place_goes(
    scenes: list[Scene], most: int, most_bytes: int
) -> None:
    gone = {one.scene.id for one in over(scenes, most=most, most_bytes=most_bytes)}
    left = [scene for scene in scenes if scene.id not in gone and not scene.in_place]
    assert len(left) <= most
    assert sum(scene.size for scene in left) <= most_bytes
    assert len({scene.unit for scene in left}) == len(left)
    assert not [scene for scene in scenes if scene.id in gone and scene.in_place]


@given(SCENES)
def test_with_room_enough_only_older_ones_of_the_same_unit_go(scenes: list[Scene]) -> None:
    doomed = over(scenes, most=100, most_bytes=1 << 40)
    for one in doomed:
        newer = [s for s in scenes if s.unit == one.scene.unit and not s.in_place and s.at > one.scene.at]
        assert newer and "newer" in one.why


def test_the_oldest_goes_first_and_says_why() -> None:
    [doomed] = over([a_scene(3), a_scene(1), a_scene(2), a_scene(4)], most=3, most_bytes=1 << 40)
    assert (doomed.scene.id, doomed.why) == (a_scene(1).id, "at most 3 are kept on a host")
    [large] = over([a_scene(1, size=6 * MIB), a_scene(2, size=6 * MIB)], most=3, most_bytes=8 * MIB)
    assert (large.scene.id, large.why) == (a_scene(1).id, "at most 8 MiB of them are kept on a host")


def test_the_name_of_a_container_says_that_it_was_set_aside() -> None:
    name = scene_name(f"unitfleet-12345678-{encode_name('web@1.service')}", "0123456789ab")
    assert scene_of(name) == "0123456789ab" and scene_of(f"/{name}") == "0123456789ab"
    for other in ("unitfleet-12345678-web.service", "x.scene-", "x.scene-0123456789ab.stopped", "my.scene-db"):
        assert scene_of(other) == ""


def test_a_record_has_the_names_of_variables_and_no_value() -> None:
    state = {
        "Status": "exited",
        "ExitCode": 137,
        "OOMKilled": True,
        "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "2026-01-01T00:00:05Z",
        "Health": {"Log": [{"End": "2026-01-01T00:00:04Z", "ExitCode": 1, "Output": "no\n"}]},
    }
    env = ["PASSWORD=hunter2", "EMPTY=", "LINES=a\nhunter2=b"]
    found = remains_of({"State": state, "Config": {"Env": env}, "SizeRw": 7})
    assert (found.exit_code, found.oom_killed, found.size) == (137, True, 7)
    assert found.finished - found.started == 5.0
    assert [(code, text) for _, code, text in found.health] == [(1, "no\n")]
    assert "hunter2" not in repr(found) and found.inspect["Config"]["Env"] == ["PASSWORD=…", "EMPTY=…", "LINES=…"]
    order = {"service": {"environment": [["PASSWORD", "hunter2"]], "start": []}}
    assert without_values(order) == {"environment": [["PASSWORD", "…"]], "start": []}
