"""What people see: tables, ages, escapes, and the words for units."""

from __future__ import annotations

import io
import json

import msgspec
import pytest

from harness import api_views as looks
from unitctl.commands.list_units import COLUMNS, rows
from unitctl.commands.status import block
from unitctl.failures import Failure
from unitctl.narrate import new_steps
from unitctl.phrases import addresses, step, summary
from unitctl.render import Column, Style, age, escape, items_json, short, shown_columns, size, span, table
from unitfleet.model import Cause, Port, TargetState

PLAIN = Style(io.StringIO())


def test_columns_line_up_and_nothing_is_said_with_a_dash() -> None:
    columns: list[Column[tuple[str, str]]] = [Column("A", lambda row: row[0]), Column("LONG", lambda row: row[1])]
    assert table(columns, [("unit", "x"), ("", "yy")], PLAIN) == ["A     LONG", "unit  x", "-     yy"]


def test_wide_adds_columns_and_never_reorders() -> None:
    narrow = [column.title for column in shown_columns(COLUMNS, [], "", wide=False)]
    wide = [column.title for column in shown_columns(COLUMNS, [], "", wide=True)]
    assert wide[: len(narrow)] == narrow
    assert narrow[:4] == ["UNIT", "MACHINE", "ACTIVE", "SUB"]


def test_fields_choose_columns_in_their_order_and_an_unknown_one_names_the_others() -> None:
    assert [column.title for column in shown_columns(COLUMNS, [], "since,unit", wide=False)] == ["SINCE", "UNIT"]
    with pytest.raises(Failure) as caught:
        shown_columns(COLUMNS, [], "nope", wide=False)
    assert "unit, machine" in (caught.value.hint or "")


def test_a_pending_unit_stands_in_the_list_with_its_reason() -> None:
    look = looks.pending("a.service", ("memory", 2, "x"), considered=2)
    lines = table(COLUMNS[:8], list(rows([looks.unit("a.service", target=TargetState.LAUNCHED, **look)])), PLAIN)
    assert lines[1].split() == "a.service - inactive dead pending - - no machine fits".split()


def test_a_copy_that_is_to_go_has_a_row_of_its_own() -> None:
    look = looks.running("m2")
    look["copies"] += (looks.copy("m1", "running", wanted="gone"),)
    shown = table(COLUMNS[:5], list(rows([looks.unit("a.service", target=TargetState.LAUNCHED, **look)])), PLAIN)
    assert [line.split()[1] for line in shown[1:]] == ["m2", "m1"]
    assert [line.split()[4] for line in shown[1:]] == ["running", "leaving"]


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\nb", "\x9b31m", "\u202eevil", "\x00", "\udc80"], ids=lambda text: ascii(text)
)
def test_a_terminal_never_gets_control_characters(text: str) -> None:
    assert escape(text).isprintable()


def test_ordinary_words_stay_as_they_are() -> None:
    assert escape("größer … 41 %") == "größer … 41 %"
    assert escape("a\tb\x1b", keep="\t") == "a\tb\\x1b"


def test_a_name_with_an_escape_sequence_is_harmless_in_a_status_block() -> None:
    view = looks.unit("a.service", description="\x1b]0;title\x07", **looks.failed("m\x1b[1m", "boom\x1b[2J"))
    assert all(line.isprintable() for line in block(view, [], [], "", PLAIN))


def test_a_status_block_names_why_a_copy_last_ended() -> None:
    def shown(phase: str, **fields: object) -> list[str]:
        here = looks.copy("m1", phase, **fields)
        view = looks.unit("a.service", phase=phase, settled=True, ok=True, copies=(here,))
        return [line.strip() for line in block(view, [], [], "", PLAIN)]

    assert "Restarts: 2, the last by oom" in shown("running", restarts=2, cause=Cause.OOM)
    assert "Restarts: 2" in shown("running", restarts=2)
    assert "Ended by: signal" in shown("failed", cause=Cause.SIGNAL)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (48 * 3600 - 1, "47h"), (49 * 3600, "2d")],
)
def test_a_span_is_one_figure(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_what_never_was_has_no_age() -> None:
    assert age(0.0, now=1000.0) == "-"
    assert age(820.0, now=1000.0) == "3m"


def test_bytes_are_shown_in_binary_units() -> None:
    assert [size(0), size(1023), size(1536), size(8 << 30)] == ["0 B", "1023 B", "1.5 KiB", "8 GiB"]


def test_json_is_versioned_and_carries_the_revision() -> None:
    shown = json.loads(items_json(7, [looks.unit("a.service")]))
    assert (shown["api"], shown["rev"], shown["items"][0]["name"]) == ("unitfleet/v1", 7, "a.service")


def test_no_colour_without_a_terminal_nor_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Style(Terminal()).state("failed") == "\x1b[31mfailed\x1b[0m"
    assert Style(io.StringIO()).state("failed") == "failed"
    assert Style(Terminal(), no_color=True).state("failed") == "failed"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Style(Terminal()).state("failed") == "failed"


def test_addresses_show_host_ports_and_wide_the_whole_mapping() -> None:
    ports = (Port(host=8081, container=80), Port(host=53, container=53, protocol="udp"))
    here = looks.copy("m1", "running", address="10.0.0.2", ports=ports)
    assert addresses(here) == "10.0.0.2:8081,53/udp"
    assert addresses(here, full=True) == "10.0.0.2:8081->80/tcp,53->53/udp"
    assert addresses(msgspec.structs.replace(here, address="fd00::1")) == "[fd00::1]:8081,53/udp"
    assert addresses(msgspec.structs.replace(here, ports=())) == ""


def test_ids_are_shortened_and_names_are_not() -> None:
    assert short("sha256:5c0dfecd99aa") == "5c0dfecd"
    assert short("adserver_401.service") == "adserver_401.service"


def test_a_running_unit_is_summed_up_with_its_address() -> None:
    assert summary(looks.unit("a.service", **looks.running("m2"))) == "running on m2 10.0.0.2:8081"


def test_a_start_is_told_phase_by_phase() -> None:
    said: list[str] = []
    for look in (looks.placed("m2"), looks.pulling("m2", 41), looks.starting("m2"), looks.running("m2")):
        said += new_steps(looks.unit("a.service", **look), said)
    assert said == ["placed on m2", "pulling 41 %", "starting", "running"]


def test_the_machine_is_told_even_when_its_phase_passed_unseen() -> None:
    assert new_steps(looks.unit("a.service", **looks.starting("m2")), []) == ["placed on m2", "starting"]


def test_a_move_while_starting_is_told() -> None:
    said = ["placed on m2", "starting"]
    assert new_steps(looks.unit("a.service", **looks.running("m3")), said) == ["placed on m3", "running"]


def test_a_restart_says_why_unless_it_was_asked_for() -> None:
    look = looks.starting("m1", "m1 still has the former copy") | {"phase": "restarting"}
    ended = looks.copy("m1", "restarting", message="exited with 1, again in 2 s")
    assert (
        step(looks.unit("a.service", **look | {"copies": (ended,)})) == "restarting: exited with 1, again in 2 s"
    )
    former = msgspec.structs.replace(ended, current=False)
    assert step(looks.unit("a.service", **look | {"copies": (former,)})) == "restarting"
