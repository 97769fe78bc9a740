"""`unitctl images`: the picture of images by machines, why one is missing, and orders with the right form."""

from __future__ import annotations

import json

import pytest

from harness import api_views as looks
from unitctl.__main__ import run
from unitctl.commands import images as verb
from unitctl.phrases import step
from unitfleet.api import ImageOnMachine, ImageView

APP = "registry:5000/app:1"
PINNED = "registry:5000/app@sha256:" + "ab" * 32


class Api:
    """Answers with what it was given, and notes what it was asked."""

    def __init__(self, *images: ImageView) -> None:
        self.answers = images
        self.asked: list[object] = []

    def images(self, reference: str) -> tuple[int, tuple[ImageView, ...]]:
        self.asked.append(reference)
        return 7, self.answers

    def warm_image(self, reference: str, where: dict[str, str]) -> int:
        self.asked.append((reference, where))
        return 8


def on(machine: str, state: str, **more: object) -> ImageOnMachine:
    return ImageOnMachine(machine=f"id-{machine}", machine_name=machine, state=state, **more)  # type: ignore[arg-type]


PICTURE = (
    ImageView(
        image=PINNED,
        names=(APP,),
        units=("ad@1.service", "ad@2.service", "ad@3.service"),
        machines=(
            on("m1", "held"),
            on("m2", "pulling", percent=41, why="3 of 7 layers"),
            on("m3", "missing", why="connection refused"),
        ),
    ),
    ImageView(image="registry:5000/b:2", ordered=True, where={"pool": "web"}, machines=(on("m1", "waiting"),)),
)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api(*PICTURE)
    monkeypatch.setattr(verb, "connect", lambda invocation: made)
    return made


def test_images_are_shown_by_machines_with_why_one_is_missing(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["images", "ls"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "IMAGE                           FOR                                    M1       M2    M3",
        "registry:5000/app:1 (abababab)  ad@1.service, ad@2.service and 1 more  held     41 %  missing",
        "registry:5000/b:2               warm pool=web                          waiting  -     -",
        "",
        "registry:5000/app@abababab is missing on m3: connection refused",
    ]


def test_one_image_is_shown_machine_by_machine(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers = PICTURE[:1]
    assert run(["images", "ls", APP]) == 0
    assert api.asked == [APP]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "m1       held     registry:5000/app:1 (abababab)",
        "m2       41 %     registry:5000/app:1 (abababab)  3 of 7 layers",
        "m3       missing  registry:5000/app:1 (abababab)  connection refused",
    ]


def test_a_fleet_of_many_machines_is_counted(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    states = [on(f"m{n}", "held") for n in range(7)] + [on("m8", "pulling", percent=3), on("m9", "waiting")]
    api.answers = (ImageView(image=APP, machines=tuple(states)),)
    assert run(["images", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("7 of 9   1 pulling, 1 waiting")


def test_an_image_that_settings_of_machines_name_says_so(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers = (ImageView(image=APP, by_settings=True, machines=(on("m1", "held"),)),)
    assert run(["images", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("  ")[1:] == ["settings of machines", "held"]


def test_json_holds_all_of_it(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["images", "ls", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rev"], told["items"][0]["machines"][1]["percent"]) == (7, 41)


def test_an_image_is_ordered_for_the_machines_with_all_of_the_metadata(api: Api) -> None:
    assert run(["images", "warm", APP, "--where", "pool=web", "--where", "zone=a"]) == 0
    assert api.asked == [(APP, {"pool": "web", "zone": "a"})]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["warm", "App:1"], "is no image reference: write [registry/]name[:tag][@sha256:…], in lower case"),
        (["warm", APP, "--where", "web"], "is no pair: write key=value"),
        (["unwarm", "a b"], "is no image reference"),
        (["warm"], "missing argument 'REF'"),
    ],
)
def test_a_slip_is_told_with_the_right_form(
    api: Api, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["images", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert api.asked == []


def test_a_pull_is_narrated_with_its_layers() -> None:
    copy = looks.copy("m2", "pulling", progress=41, message=f"pulling {APP} 41 % (3 of 7 layers)")
    assert step(looks.unit("a.service", **looks.pulling("m2", 41))) == "pulling 41 %"
    assert step(looks.unit("a.service", phase="pulling", copies=(copy,))) == "pulling 41 % (3 of 7 layers)"
