"""Configuration: file < variables < flags, and a clear word for everything that can't be used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from unit_master.settings import MasterConfig
from unitfleet.config import fail, load, option, render
from unitfleet.errors import InvalidConfig
from unitfleet.profiles import Profile


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Config:
    """Tries every type."""

    name: str = option("NAME", "who", "nobody")
    state_dir: Path = option("DIR", "where", Path("/var/lib/x"))
    port: int = option("PORT", "which port", 80)
    share: float = option("SHARE", "how much (in %)", 0.5)
    quiet: bool = option("", "say less", False)
    etcd: tuple[str, ...] = option("HOST:PORT,…", "where etcd is", ("a:1",))
    metadata: dict[str, str] = option("K=V,…", "about the machine", {})
    colour: Colour = option("red|blue", "which", Colour.RED)


def read(*argv: str, **environ: str) -> Config:
    return load("a-program", Config, argv, environ)


def refusal(*argv: str, **environ: str) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        read(*argv, **environ)
    return caught.value


def test_nothing_said_is_the_defaults() -> None:
    assert read() == Config()


def test_a_flag_beats_a_variable_and_a_variable_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('name = "file"\nport = 1\nshare = 0.25\n')
    config = read("--config", str(file), "--name", "flag", UNITFLEET_NAME="variable", UNITFLEET_PORT="2")
    assert (config.name, config.port, config.share) == ("flag", 2, 0.25)


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('state-dir = "/s"\n')
    assert read(UNITFLEET_CONFIG=str(file)).state_dir == Path("/s")


@pytest.mark.parametrize(
    ("toml", "flags"),
    [
        pytest.param("quiet = true", ["--quiet"], id="a boolean"),
        pytest.param('etcd = ["b:1", "c:2"]', ["--etcd", "b:1,c:2"], id="a list"),
        pytest.param('etcd = "b:1, c:2"', ["--etcd=b:1,c:2"], id="a list as text"),
        pytest.param('[metadata]\nzone = "a"\n', ["--metadata", "zone=a"], id="a table"),
        pytest.param('colour = "blue"', ["--colour", "blue"], id="a choice"),
        pytest.param("port = 9", ["--port", "9"], id="a number"),
    ],
)
def test_file_and_flags_say_the_same(toml: str, flags: list[str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(toml)
    from_file = read("--config", str(file))
    assert from_file == read(*flags) != Config()


def test_a_flag_can_take_back_what_the_file_switched_on() -> None:
    assert not read("--no-quiet", UNITFLEET_QUIET="yes").quiet


def test_what_check_prints_gives_the_same_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--name",
        'q"\\\n',
        "--metadata",
        "zone=a,rack=b c",
        "--etcd",
        "x:1,y:2",
        "--quiet",
        "--colour",
        "blue",
    ]
    with pytest.raises(SystemExit) as ended:
        read(*flags, "--check")
    assert ended.value.code == 0
    file = tmp_path / "c.toml"
    file.write_text(capsys.readouterr().out)
    assert read("--config", str(file)) == read(*flags)


def test_check_refuses_what_a_start_would_refuse() -> None:
    assert "port" in refusal("--check", "--port", "x").message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param(["--nmae", "x"], ("--nmae", "did you mean --name?"), id="a misspelt flag"),
        pytest.param(["--nam", "x"], ("--nam", "did you mean --name?"), id="a shortened flag"),
        pytest.param(["stray"], ("stray", "--help"), id="an argument"),
        pytest.param(["--port"], ("--port", "--help"), id="a flag without its value"),
        pytest.param(["--port", "http"], ("--port", "http"), id="no number"),
        pytest.param(["--colour", "green"], ("green", "red, blue"), id="no choice"),
        pytest.param(["--metadata", "zone"], ("zone", "key=value"), id="no pair"),
        pytest.param(["--config", "/nowhere/at/all"], ("/nowhere/at/all",), id="no such file"),
    ],
)
def test_a_refusal_names_the_flag_and_what_is_allowed(argv: list[str], words: tuple[str, ...]) -> None:
    error = refusal(*argv)
    for word in words:
        assert word in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        pytest.param('nmae = "x"', ("unknown key nmae", "did you mean name?"), id="a misspelt key"),
        pytest.param("zzz = 1", ("unknown key zzz", "known keys"), id="an unknown key"),
        pytest.param("port = true", ("port in", "not a number"), id="a boolean for a number"),
        pytest.param("name = 3", ("name in", "not text"), id="a number for text"),
        pytest.param("quiet = 1", ("quiet in", "neither true nor false"), id="a number for a boolean"),
        pytest.param("etcd = [1]", ("etcd in", "list of words"), id="numbers for words"),
        pytest.param("name = ", ("cannot read",), id="no TOML"),
    ],
)
def test_a_bad_file_is_refused_with_its_key(toml: str, words: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(toml)
    error = refusal("--config", str(file))
    for word in (*words, str(file)):
        assert word in f"{error.message} {error.hint}"


def test_binary_junk_as_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in refusal("--config", str(file)).message


def test_a_bad_variable_is_named() -> None:
    assert "UNITFLEET_PORT" in refusal(UNITFLEET_PORT="many").message


def test_help_tells_every_option_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--help")
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--state-dir DIR" in out and "default: 80" in out and "in %" in out


def test_a_failure_is_told_on_stderr_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fail("a-program", InvalidConfig("cannot x: y", hint="z"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "a-program: cannot x: y\nhint: z\n"


def master(*argv: str) -> MasterConfig:
    return load("unit-master", MasterConfig, argv, {})


@pytest.mark.parametrize("listen", ["0.0.0.0:4001", "192.0.2.1:4001", "[::]:4001", "example.org:4001"])
def test_a_master_listens_on_loopback_alone_without_an_identity_or_a_trusted_network(
    listen: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="loopback"):
        master("--listen", listen)
    assert master("--listen", listen, "--trusted-network").listen == listen
    for identity in (("--tls-dir", str(tmp_path)), ("--join", "ufj1.x"), ("--join-file", str(tmp_path / "token"))):
        assert master("--listen", listen, *identity).has_tls
    with pytest.raises(InvalidConfig, match="loopback"):
        master("--listen", listen, "--state-dir", str(tmp_path))
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/cert.pem").touch()
    assert master("--listen", listen, "--state-dir", str(tmp_path)).has_tls, "what is there is used"


@pytest.mark.parametrize("listen", ["127.0.0.1:4001", "[::1]:0", "localhost:1", "127.1.2.3:9"])
def test_a_master_listens_anywhere_on_loopback(listen: str) -> None:
    assert master("--listen", listen).address[1] >= 0


@pytest.mark.parametrize(
    "argv",
    [
        ["--listen", "127.0.0.1"],
        ["--listen", "127.0.0.1:http"],
        ["--listen", "127.0.0.1:70000"],
        ["--etcd", "localhost"],
        ["--etcd", ""],
        ["--name", "a b"],
        ["--name", ""],
        ["--profile", "slow"],
    ],
    ids=" ".join,
)
def test_a_master_refuses_what_it_cannot_use(argv: list[str]) -> None:
    with pytest.raises(InvalidConfig, match=argv[0].removeprefix("--")):
        master(*argv)


def test_secrets_are_in_the_state_dir_unless_named() -> None:
    config = master("--state-dir", "/s", "--token-file", "/t/token", "--profile", "fast")
    assert (config.token_path, config.cluster_key_path) == (Path("/t/token"), Path("/s/cluster.key"))
    assert config.profile is Profile.FAST
    assert 'state-dir = "/s"' in render(config)
