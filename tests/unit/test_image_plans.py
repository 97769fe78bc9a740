"""What a host does about its warm set, which images may go, and whom credentials are shown to."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from unit_agent.images.collection import Image, familiar, judge, kept_text
from unit_agent.images.credentials import Credentials, lookup, qualified, registry_of
from unit_agent.images.plan import Failure, Seen, lacks, missing_text, next_look, to_pull, told
from unit_agent.images.record import ImageRecord
from unit_agent.settings import AgentConfig
from unitfleet.accept import read
from unitfleet.errors import InvalidConfig, InvalidUnit
from unitfleet.model import WarmSet

NOBODY: frozenset[str] = frozenset()


def a_set(*images: str, turns: tuple[str, ...] | None = None, nonce: str = "n1") -> WarmSet:
    return WarmSet(id="m1", nonce=nonce, images=images, turns=images if turns is None else turns)


# ---------------------------------------------------------------------- warming


def test_only_what_it_is_this_machine_s_turn_for_is_pulled() -> None:
    assert to_pull(a_set("a:1", "b:1", "c:1", turns=("b:1", "c:1")), Seen(), frozenset({"c:1"}), 0.0) == ("b:1",)


def test_what_is_held_or_failed_a_moment_ago_is_not_pulled() -> None:
    seen = Seen(held=frozenset({"a:1"}), failures={"b:1": Failure("refused", 1, 10.0)})
    assert to_pull(a_set("a:1", "b:1"), seen, NOBODY, 9.9) == ()
    assert to_pull(a_set("a:1", "b:1"), seen, NOBODY, 10.0) == ("b:1",)
    assert next_look(a_set("a:1", "b:1"), seen, 4.0, 60.0) == 6.0
    assert next_look(a_set("a:1"), seen, 4.0, 60.0) == 60.0


def test_what_is_here_is_told_image_by_image() -> None:
    seen = Seen(
        held=frozenset({"a:1", "of-old:1"}),
        pulling={"b:1": 43},
        layers={"b:1": "3 of 7 layers", "of-old:1": "1 of 1 layers"},
        failures={"c:1": Failure("refused", 3, 0.0)},
    )
    record = told("m1", a_set("a:1", "b:1", "c:1", "d:1"), seen)
    assert record.held == ("a:1",)
    assert (record.pulling, record.layers) == ({"b:1": 40}, {"b:1": "3 of 7 layers"})
    assert record.missing == {"c:1": "refused (tried 3 times)", "d:1": ""}


def test_a_machine_is_warm_when_it_holds_all_that_it_was_told() -> None:
    held = Seen(held=frozenset({"a:1"}))
    assert lacks(a_set("a:1"), "n1", held) == ""
    assert lacks(a_set(), "n1", Seen()) == ""
    assert lacks(a_set("a:1", "b:1"), "n1", held) == "1 of 2 images"


@pytest.mark.parametrize(
    ("wanted", "seen", "why"),
    [
        pytest.param(None, Seen(), "waits to be told its warm set", id="nobody told it anything"),
        pytest.param(a_set(nonce="of old"), Seen(), "waits to be told its warm set", id="it was told long ago"),
        pytest.param(a_set(), Seen(trouble="no Engine"), "no Engine", id="its Engine can't be asked"),
    ],
)
def test_a_machine_is_not_warm_while(wanted: WarmSet | None, seen: Seen, why: str) -> None:
    assert lacks(wanted, "n1", seen) == why


def test_an_image_that_does_not_exist_keeps_no_machine_from_being_ready() -> None:
    absent = {"b:1": Failure("manifest unknown", 1, 0.0, absent=True)}
    assert lacks(a_set("a:1", "b:1"), "n1", Seen(held=frozenset({"a:1"}), failures=absent)) == ""
    assert lacks(a_set("a:1", "b:1"), "n1", Seen(failures=absent)) == "0 of 2 images"


def test_what_is_missing_is_said_in_a_sentence() -> None:
    seen = Seen(failures={"a:1": Failure("refused", 1, 0.0)})
    assert missing_text(a_set("a:1", "b:1"), seen) == "a:1: refused; b:1: not pulled yet"
    assert missing_text(a_set(*"abcde"), Seen()).endswith(", and 2 more")


# ---------------------------------------------------------------------- garbage collection


def an_image(name: str = "app", *, used: float = 0.0, brought: bool = True, more: tuple[str, ...] = ()) -> Image:
    tags = (f"{name}:1", *more)
    return Image(id=f"sha256:{name}", tags=tags, used=used, brought=(f"{name}:1",) if brought else ())


def removable(*images: Image, in_use: str = "", wanted: str = "", everything: bool = False) -> list[str]:
    verdicts = judge(images, in_use={f"sha256:{in_use}"}, wanted={f"sha256:{wanted}"}, everything=everything)
    return [verdict.image.name for verdict in verdicts if not verdict.why]


def test_the_image_that_was_unused_for_longest_goes_first() -> None:
    assert removable(an_image("b", used=30.0), an_image("c", used=10.0), an_image("a", used=20.0)) == [
        "c:1",
        "a:1",
        "b:1",
    ]


def test_an_image_in_use_or_wanted_never_goes() -> None:
    images = an_image("used"), an_image("wanted"), an_image("other")
    for everything in (False, True):
        assert removable(*images, in_use="used", wanted="wanted", everything=everything) == ["other:1"]


def test_an_image_that_others_brought_or_named_goes_only_when_all_may() -> None:
    theirs, named = an_image("theirs", brought=False), an_image("shared", more=("mine:latest",))
    assert removable(theirs, named) == []
    assert removable(theirs, named, everything=True) == ["shared:1", "theirs:1"]


def test_why_images_stay_is_counted() -> None:
    verdicts = judge(
        [an_image("a"), an_image("b"), an_image("c", brought=False)],
        in_use={"sha256:a"},
        wanted={"sha256:b"},
        everything=False,
    )
    assert kept_text(verdicts) == "1 in use by a container, 1 not pulled by this agent, 1 wanted here"


@pytest.mark.parametrize(
    ("reference", "listed"),
    [
        ("app", "app:latest"),
        ("docker.io/library/app:1", "app:1"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("registry:5000/app@sha256:" + "a" * 64, "registry:5000/app@sha256:" + "a" * 64),
    ],
)
def test_references_are_compared_as_the_engine_lists_them(reference: str, listed: str) -> None:
    assert familiar(reference) == listed


async def test_what_was_brought_is_known_after_a_restart(tmp_path: Path) -> None:
    record = ImageRecord(tmp_path)
    record.brought("sha256:a", "a:1", 10.0)
    record.brought("sha256:a", "a:2", 20.0)
    record.brought("sha256:b", "b:1", 20.0)
    record.ready_in("boot1")
    record.keep_only({"sha256:a"})
    await record.save()
    again = ImageRecord(tmp_path).kept
    assert (again.brought, again.used, again.ready_boot) == (
        {"sha256:a": ("a:1", "a:2")},
        {"sha256:a": 20.0},
        "boot1",
    )


def test_a_damaged_record_of_images_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{")
    assert ImageRecord(tmp_path).kept.brought == {}


# ---------------------------------------------------------------------- credentials


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("app:1", "docker.io"),
        ("team/app:1", "docker.io"),
        ("docker.io/team/app", "docker.io"),
        ("registry:5000/app", "registry:5000"),
        ("registry.example/app", "registry.example"),
        ("localhost/app", "localhost"),
    ],
)
def test_the_registry_of_a_reference(image: str, registry: str) -> None:
    assert registry_of(image) == registry


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("app:1", "docker.io/library/app:1"),
        ("team/app", "docker.io/team/app"),
        ("docker.io/team/app", "docker.io/team/app"),
        ("registry:5000/app", "registry:5000/app"),
    ],
)
def test_a_reference_is_shown_to_its_registry_in_full(image: str, full: str) -> None:
    assert qualified(image) == full


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("registry:5000", "registry:5000"),
        ("https://registry:5000/v2/", "registry:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_credentials_are_found_under_the_keys_that_docker_login_writes(key: str, registry: str) -> None:
    found = lookup(
        {"auths": {"other:5000": {"auth": basic("x:y")}, key: {"auth": basic("me:open:sesame")}}}, registry
    )
    assert found is not None
    assert (found["username"], found["password"]) == ("me", "open:sesame")


def test_no_credentials_are_shown_to_another_registry() -> None:
    config = {"auths": {"registry:5000": {"auth": basic("me:secret")}}}
    for other in ("registry:5001", "registry", "docker.io", "my-registry:5000"):
        assert lookup(config, other) is None


def test_tokens_and_plain_fields_are_taken_too() -> None:
    token = lookup({"auths": {"r:1": {"identitytoken": "t"}}}, "r:1")
    plain = lookup({"auths": {"r:1": {"username": "me", "password": "p"}}}, "r:1")
    assert token is not None
    assert plain is not None
    assert (token["identitytoken"], plain["password"]) == ("t", "p")


@pytest.mark.parametrize("text", ["{", '{"auths": 3}', '{"auths": {"r:1": {"auth": "s3cret!!"}}}', "[]"])
def test_a_file_that_can_t_be_used_is_told_without_its_content(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(text)
    assert Credentials(str(tmp_path / "config.json")).find("r:1") is None
    assert "could not use the registry credentials" in caplog.text
    assert "s3cret" not in caplog.text


def test_the_file_is_read_anew_for_each_pull(tmp_path: Path) -> None:
    credentials = Credentials(str(tmp_path / "config.json"))
    assert credentials.find("r:1") is None
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r:1": {"auth": basic("me:p")}}}))
    found = credentials.find("r:1")
    assert found is not None
    assert found["username"] == "me"


# ---------------------------------------------------------------------- what can be said


def test_warm_is_yes_unless_the_unit_says_no() -> None:
    text = "[Container]\nImage=app:1\n[X-Fleet]\n"
    assert read("a.service", text).warm
    assert read("a.service", text + "Warm=yes\n").warm
    assert not read("a.service", text + "Warm=no\n").warm


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Container]\nImage=app:1\n[X-Fleet]\nWarm=maybe\n", "a.service:4: Warm=: 'maybe' is neither yes nor no"),
        (
            "[Service]\nExecStart=/bin/true\n[X-Fleet]\nWarm=no\n",
            "a.service:4: Warm= is for units that pull an image",
        ),
    ],
)
def test_a_wrong_warm_is_refused_with_the_right_form(text: str, said: str) -> None:
    with pytest.raises(InvalidUnit) as refused:
        read("a.service", text)
    assert said in refused.value.problems[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pulls_at_once", 0),
        ("image_gc", 10),
        ("image_gc", 100),
        ("warm_timeout", "soon"),
        ("warm_timeout", "infinity"),
    ],
)
def test_an_option_that_can_t_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidConfig, match=field.replace("_", "-")):
        AgentConfig(**{field: value})  # type: ignore[arg-type]


def test_garbage_collection_and_the_wait_can_be_switched_off() -> None:
    config = AgentConfig(image_gc=0, warm_timeout="0")
    assert (config.image_gc, config.warm_timeout_s) == (0, 0.0)
