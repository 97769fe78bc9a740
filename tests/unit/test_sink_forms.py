"""How sinks are named, and what a line looks like in each of them."""

from __future__ import annotations

import importlib.util
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.log_store import AT
from unit_agent.logs.record import LogRecord
from unit_agent.logs.sinks import opening
from unit_agent.logs.sinks.address import read
from unit_agent.logs.sinks.login import Login, login, tls
from unit_agent.logs.sinks.loki import nanoseconds, payload
from unit_agent.logs.sinks.rfc5424 import frame, message
from unit_agent.logs.sinks.s3 import objects
from unit_agent.logs.sinks.sink import Source
from unit_agent.settings import AgentConfig
from unitfleet import foreign
from unitfleet.errors import InvalidConfig
from unitfleet.shipped import ShippedLine

SOURCE = Source("m1", "node-a")


def record(seq: int = 7, text: str = "hello", **more: object) -> LogRecord:
    made = LogRecord("ad@1.service", 3, seq, AT + seq, "stdout", text)
    return made._replace(**more)  # type: ignore[arg-type]


# --- addresses


def test_every_kind_of_sink_is_read_with_its_defaults() -> None:
    found = read(
        [
            "nats://n1/fleet/logs?also=n2:4222&also=n3:4222",
            "kafka://k1/logs",
            "loki://l1?tls=yes&tenant=ops",
            "s3://bucket/a/b?endpoint=http://minio:9000&every=5",
            "file:///var/log/units.jsonl?keep=2&max=1M",
            "syslog://s1?transport=udp",
            "syslog:///dev/log?name=local",
            "store:",
        ]
    )
    assert [address.name for address in found] == "nats kafka loki s3 file syslog local store".split()
    assert found[0].hosts == ("n1:4222", "n2:4222", "n3:4222") and found[0].path == "fleet/logs"
    assert [address.port for address in found[1:3]] == [9092, 3100]
    assert (found[3].host, found[3].path) == ("bucket", "a/b")
    assert [address.path for address in found[4:7]] == ["/var/log/units.jsonl", "", "/dev/log"]
    assert [address.shown() for address in found][1:3] == ["kafka://k1:9092/logs", "loki://l1:3100"]
    assert read(["nats://[::1]"])[0].hosts == ("[::1]:4222",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("natz://h", "did you mean nats://"),
        ("http://h", "is no kind of sink"),
        ("nothing", "is no kind of sink"),
        ("nats://", "names no host"),
        ("kafka://h", "no topic"),
        ("loki://h:many", "port could not be cast"),
        ("s3:///prefix", "names no bucket"),
        ("file://host/path", "names no file"),
        ("file:///dir/", "names no file"),
        ("syslog:", "neither host nor socket"),
        ("store://h", "found by the store"),
        ("nats://h?colour=red", "unknown 'colour'"),
        ("nats://h?name=A B", "is no name"),
        ("nats://h?name=none", "is taken"),
        ("nats://user:secret@h", "carries credentials"),
        ("file:///a?tls=yes", "unknown 'tls'"),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_right_form(text: str, why: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        read([text])
    told = f"{refused.value.message} {refused.value.hint}"
    assert why in told and told.startswith("cannot use log-sinks: ")
    assert "secret" not in told


def test_an_agent_refuses_them_before_it_begins() -> None:
    with pytest.raises(InvalidConfig, match="is no kind of sink"):
        AgentConfig(log_sinks=("natz://h",))
    assert AgentConfig().log_sinks == ("store:",) and AgentConfig(log_sinks=()).log_sinks == ()


def test_two_sinks_need_two_names() -> None:
    with pytest.raises(InvalidConfig, match="two sinks have this name"):
        read(["loki://a", "loki://b"])
    assert [address.name for address in read(["loki://a", "loki://b?name=second"])] == ["loki", "second"]


def test_a_sink_without_its_library_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidConfig) as refused:
        opening.check(["nats://h"])
    assert "nats is not installed" in refused.value.message
    assert refused.value.hint == "pip install unitfleet[nats]"
    assert opening.check(["loki://h", "file:///a", "store:"])


# --- secrets


def test_a_token_file_holds_a_token_or_a_user_with_a_password(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    [address] = read([f"loki://h?token-file={path}"])
    path.write_text("abc\n")
    assert login(address) == Login(token="abc")
    path.write_text("me:pass:word\n")
    assert login(address) == Login(user="me", password="pass:word")
    assert "pass" not in repr(login(address)) and "abc" not in address.shown()
    for wrong in ("", "two\nlines"):
        path.write_text(wrong)
        with pytest.raises(InvalidConfig, match="does not hold one line"):
            login(address)
    with pytest.raises(InvalidConfig, match="cannot read"):
        login(read(["loki://h?token-file=/nowhere/at/all"])[0])


def test_tls_is_off_unless_asked_for() -> None:
    assert tls(read(["loki://h"])[0]) is None
    assert isinstance(tls(read(["loki://h?tls=yes"])[0]), ssl.SSLContext)
    with pytest.raises(InvalidConfig, match="neither yes nor no"):
        tls(read(["loki://h?tls=perhaps"])[0])
    with pytest.raises(InvalidConfig, match="cannot read"):
        tls(read(["loki://h?ca-file=/nowhere"])[0])


# --- lines


def test_a_line_carries_its_key_and_reads_back() -> None:
    assert SOURCE.key(record()) == "m1/ad@1.service/7"
    line = foreign.decode(SOURCE.line(record(file="/var/log/x", text="ü\x00")), ShippedLine)
    assert (line.key, line.name, line.text, line.file, line.epoch) == (
        "m1/ad@1.service/7",
        "node-a",
        "ü\x00",
        "/var/log/x",
        3,
    )


def test_a_syslog_message_is_of_rfc_5424() -> None:
    at = datetime.fromtimestamp(AT + 7, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert message(record(), SOURCE) == (
        f'<14>1 {at} node-a ad@1.service 3 stdout [unitfleet@32473 key="m1/ad@1.service/7"] hello'.encode()
    )
    assert message(record(stream="stderr"), SOURCE).startswith(b"<11>1 ")
    odd = record(unit="ü" * 60 + ".service", file='/a"b]c\\d')
    head, _, rest = message(odd, SOURCE).partition(b" [")
    assert head.split(b" ")[3] == b"_" * 48
    assert b'file="/a\\"b\\]c\\\\d"] hello' in rest


def test_a_frame_counts_octets_so_that_a_line_break_ends_nothing() -> None:
    assert frame("ü\nb".encode()) == b"4 \xc3\xbc\nb"


def test_a_loki_push_has_a_stream_a_unit_and_output_with_lines_in_order() -> None:
    batch = [record(1, "a"), record(2, "b", stream="stderr"), record(3, "c", file="/x")]
    streams = json.loads(payload(batch, SOURCE))["streams"]
    assert [stream["stream"] for stream in streams] == [
        {"unit": "ad@1.service", "machine": "node-a", "stream": name} for name in ("stdout", "stderr")
    ]
    assert [value[1] for value in streams[0]["values"]] == ["a", "c"]
    assert streams[0]["values"][1][2] == {"seq": "3", "epoch": "3", "file": "/x"}
    plain = json.loads(payload(batch, SOURCE, metadata=False))["streams"]
    assert [len(value) for value in plain[0]["values"]] == [2, 2]


def test_equal_lines_of_one_moment_stay_two_in_loki_and_one_line_sent_twice_stays_one() -> None:
    one, two = record(1, at=AT), record(2, at=AT)
    assert nanoseconds(one) != nanoseconds(two)
    assert nanoseconds(one) == nanoseconds(record(1, at=AT))
    assert nanoseconds(one) // 1_000_000_000 == int(AT)


def test_s3_objects_are_by_hour_and_unit_and_named_by_their_first_line() -> None:
    hour = AT // 3600 * 3600
    batch = [
        record(8, at=hour),
        record(9, at=hour + 3600),
        record(1, unit="b.service", at=hour),
        record(10, at=hour),
    ]
    batch.append(record(11, at=hour + 1))
    assert [(name, [line.seq for line in lines]) for name, lines in objects(batch, SOURCE, "fleet")] == [
        ("fleet/2023/11/14/22/ad@1.service/m1-000000000008.jsonl.gz", [8]),
        ("fleet/2023/11/14/23/ad@1.service/m1-000000000009.jsonl.gz", [9]),
        ("fleet/2023/11/14/22/ad@1.service/m1-000000000010.jsonl.gz", [10, 11]),
        ("fleet/2023/11/14/22/b.service/m1-000000000001.jsonl.gz", [1]),
    ]
    assert objects(batch, SOURCE, "")[0][0].startswith("2023/")
