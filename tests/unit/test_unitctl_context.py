"""Where unitctl finds the API and its token."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitctl.context import LOCAL_SOCKETS, Endpoint, Invocation, config_file, find, forget, parse_endpoint, save
from unitfleet.errors import InvalidConfig, NotFound


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}


def token_file(tmp_path: Path, mode: int = 0o600, text: str = "s3cret\n") -> str:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def names(context_endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.name for endpoint in context_endpoints]


def test_without_any_word_the_sockets_of_this_host_are_used(env: dict[str, str]) -> None:
    context = find(Invocation(), env)
    assert [endpoint.socket for endpoint in context.endpoints] == list(LOCAL_SOCKETS)
    assert context.token == ""


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_context(env: dict[str, str]) -> None:
    save("demo", ("http://127.0.0.1:1",), "", env)
    env["UNITCTL_ENDPOINT"] = "http://127.0.0.1:2"
    assert names(find(Invocation(endpoint="127.0.0.1:3, /run/x.sock"), env).endpoints) == [
        "127.0.0.1:3",
        "/run/x.sock",
    ]
    assert names(find(Invocation(), env).endpoints) == ["http://127.0.0.1:2"]
    del env["UNITCTL_ENDPOINT"]
    assert names(find(Invocation(), env).endpoints) == ["http://127.0.0.1:1"]


def test_a_context_named_on_the_command_line_wins_over_the_variable(env: dict[str, str]) -> None:
    save("other", ("http://127.0.0.1:4",), "", env)
    save("demo", ("http://127.0.0.1:1",), "", env)
    env["UNITCTL_ENDPOINT"] = "http://127.0.0.1:2"
    assert names(find(Invocation(context="other"), env).endpoints) == ["http://127.0.0.1:4"]


def test_what_is_saved_is_found_again_and_becomes_the_current_context(env: dict[str, str], tmp_path: Path) -> None:
    save("one", ("http://127.0.0.1:1", 'unix:///tmp/a "b".sock'), token_file(tmp_path), env)
    save("two", ("http://127.0.0.1:2",), "", env)
    assert names(find(Invocation(), env).endpoints) == ["http://127.0.0.1:2"]
    one = find(Invocation(context="one"), env)
    assert names(one.endpoints) == ["http://127.0.0.1:1", 'unix:///tmp/a "b".sock']
    assert one.token == "s3cret"


def test_the_file_goes_with_its_last_context(env: dict[str, str]) -> None:
    save("one", ("http://127.0.0.1:1",), "", env)
    save("two", ("http://127.0.0.1:2",), "", env)
    forget("two", env)
    assert [endpoint.socket for endpoint in find(Invocation(), env).endpoints] == list(LOCAL_SOCKETS)
    assert names(find(Invocation(context="one"), env).endpoints) == ["http://127.0.0.1:1"]
    forget("one", env)
    assert not config_file(env).exists()


def test_an_unknown_context_names_those_there_are(env: dict[str, str]) -> None:
    save("demo", ("http://127.0.0.1:1",), "", env)
    with pytest.raises(NotFound) as caught:
        find(Invocation(context="dmeo"), env)
    assert "demo" in (caught.value.hint or "")


def test_a_token_goes_only_to_endpoints_of_its_context(env: dict[str, str], tmp_path: Path) -> None:
    save("demo", ("http://127.0.0.1:1",), token_file(tmp_path), env)
    assert find(Invocation(endpoint="http://127.0.0.1:1"), env).token == "s3cret"
    assert find(Invocation(endpoint="http://10.0.0.9:1"), env).token == ""
    assert find(Invocation(endpoint="http://127.0.0.1:1,http://10.0.0.9:1"), env).token == ""


def test_the_token_file_of_the_environment_wins(env: dict[str, str], tmp_path: Path) -> None:
    env["UNITCTL_TOKEN_FILE"] = token_file(tmp_path)
    assert find(Invocation(endpoint="http://127.0.0.1:1"), env).token == "s3cret"


def test_a_token_that_everybody_can_read_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    env["UNITCTL_TOKEN_FILE"] = token_file(tmp_path, 0o644)
    with pytest.raises(InvalidConfig, match="everybody can read it"):
        find(Invocation(), env)


def test_a_token_that_the_group_can_read_is_warned_of(env: dict[str, str], tmp_path: Path) -> None:
    env["UNITCTL_TOKEN_FILE"] = token_file(tmp_path, 0o640)
    context = find(Invocation(), env)
    assert context.token == "s3cret"
    assert "chmod 600" in context.warnings[0]


@pytest.mark.parametrize("text", ["", "two\nlines", "\x00\x01"], ids=["empty", "more than a line", "binary"])
def test_a_file_that_holds_no_token_is_refused(env: dict[str, str], tmp_path: Path, text: str) -> None:
    env["UNITCTL_TOKEN_FILE"] = token_file(tmp_path, text=text)
    with pytest.raises(InvalidConfig, match="no token"):
        find(Invocation(), env)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://10.0.0.1:7440/", Endpoint(name="http://10.0.0.1:7440/", host="10.0.0.1", port=7440)),
        ("host:1", Endpoint(name="host:1", host="host", port=1)),
        ("http://[::1]:7440", Endpoint(name="http://[::1]:7440", host="::1", port=7440)),
        ("unix:///run/a.sock", Endpoint(name="unix:///run/a.sock", socket="/run/a.sock")),
        ("/run/a.sock", Endpoint(name="/run/a.sock", socket="/run/a.sock")),
    ],
)
def test_an_endpoint_is_a_socket_or_host_and_port(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text", ["host", "host:", ":1", "host:0", "host:70000", "unix://run/a", "https://h", "h:²"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="cannot use endpoint"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "text",
    ["current = ", "current = 3", "contexts = 1", '[contexts.a]\nendpoints = "x"', "[contexts.a]\ntoken-file = 3"],
)
def test_a_broken_config_file_is_named(env: dict[str, str], text: str) -> None:
    path = config_file(env)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=r"config\.toml"):
        find(Invocation(), env)
