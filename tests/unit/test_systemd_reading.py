"""What systemd would make of lines, words, variables, specifiers and values."""

from __future__ import annotations

from typing import Any

import pytest

from unitfleet import environment, quantities, quoting, systemd, timespan
from unitfleet.names import split
from unitfleet.problems import BadValue, Problems, Severity
from unitfleet.section import Section
from unitfleet.spec import ExitStatus, Limit
from unitfleet.specifiers import Specifiers


def read(text: str) -> list[tuple[str, str, str, int]]:
    problems = Problems()
    found = systemd.read(text, problems)
    assert problems.found == []
    return [(option.section, option.name, option.value, option.line) for option in found]


def test_a_comment_inside_a_continued_line_is_dropped() -> None:
    text = "[Service]\nExecStart=/bin/a \\\n  one \\\n# two \\\n; three\n  four\nType=simple\n"
    assert read(text) == [("Service", "ExecStart", "/bin/a    one    four", 2), ("Service", "Type", "simple", 7)]


def test_a_comment_that_ends_in_a_backslash_does_not_continue() -> None:
    assert read("[A]\n# c \\\nx=1\n") == [("A", "x", "1", 3)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("[A]\nx=1 \\ \ny=2\n", [("x", "1 \\"), ("y", "2")], id="a blank after it ends the line"),
        pytest.param("[A]\nx=1\\\\\ny=2\n", [("x", "1\\\\"), ("y", "2")], id="two of them are a literal"),
        pytest.param("[A]\nx=1\\\\\\\ny=2\n", [("x", "1\\\\ y=2")], id="three of them continue"),
        pytest.param("[A]\nx=1\\\n\ny=2\n", [("x", "1"), ("y", "2")], id="a blank line ends the value"),
        pytest.param("[A]\nx=1\\", [("x", "1")], id="at the end of the text it is nothing"),
        pytest.param("[A]\r\nx=1 \\\r\n2\r\n", [("x", "1  2")], id="a carriage return before the newline is fine"),
    ],
)
def test_a_backslash_at_the_end_of_a_line(text: str, wanted: list[tuple[str, str]]) -> None:
    assert [(name, value) for _, name, value, _ in read(text)] == wanted


@pytest.mark.parametrize(
    ("text", "line", "severity"),
    [
        ("[A]\nno assignment\n", 2, Severity.ERROR),
        ("[A]\n=x\n", 2, Severity.ERROR),
        ("[A\nx=1\n", 1, Severity.ERROR),
        ("x=1\n[A]\n", 1, Severity.WARNING),
    ],
)
def test_a_line_that_is_no_assignment_is_named(text: str, line: int, severity: Severity) -> None:
    problems = Problems()
    systemd.read(text, problems)
    assert (problems.found[0].line, problems.found[0].severity) == (line, severity)


def test_an_empty_assignment_resets_a_list_and_a_single_value() -> None:
    problems = Problems()
    options = systemd.read("[A]\nx=1\nx=2\ny=1\nx=\nx=3\ny=\n", problems)
    section = Section("A", options, Specifiers(split("a.service")), problems)
    assert [option.value for option in section.listed("x")] == ["3"]
    assert section.last("y") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\" e'f g'h", ["a b", "c d", "ef gh"]),
        ("\"\" ''", ["", ""]),
        (r'"a \"b\" c" it\'s', ['a "b" c', "it's"]),
        (r"a\nb \x41\101\u00e9 \s", ["a\nb", "AAé", " "]),
        (r"grep \.[1-9] '\$x' \x0", [r"grep", r"\.[1-9]", r"\$x", r"\x0"]),
        ('{{ index .Ports \\"9000/tcp\\" }}', ["{{", "index", ".Ports", '"9000/tcp"', "}}"]),
        ("a\\", ["a\\"]),
    ],
)
def test_words_are_split_and_unquoted(text: str, words: list[str]) -> None:
    assert quoting.split_words(text) == words


def test_a_quote_that_is_never_closed_is_refused() -> None:
    with pytest.raises(quoting.UnbalancedQuote):
        quoting.split_words("sh -c 'echo")


ENVIRONMENT = {
    "ONE": "1",
    "TWO": "a 'b c'",
    "EMPTY": "",
    "OPEN": "'it s' 'open till the end",
    "SLASHES": r"a\ b \\x41 ",
}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        pytest.param("$TWO", ["a", "b c"], id="a word that is a variable splits"),
        pytest.param("${TWO}", ["a 'b c'"], id="braces keep one word"),
        pytest.param("x${ONE}y${UNSET}z", ["x1yz"], id="braces work anywhere, unset is empty"),
        pytest.param("$UNSET", [], id="an unset variable alone is no word"),
        pytest.param("$EMPTY", [], id="an empty variable alone is no word"),
        pytest.param("${UNSET}", [""], id="unset in braces is an empty word"),
        pytest.param("$$ONE", ["$ONE"], id="two dollars are one"),
        pytest.param("$${ONE}", ["${ONE}"], id="two dollars before braces"),
        pytest.param("x$ONE", ["x$ONE"], id="no braces inside a word"),
        pytest.param("${ONE:-x}", ["${ONE:-x}"], id="shell forms stay"),
        pytest.param("$(date)", [], id="a word that begins with a dollar is a variable's name, unset"),
        pytest.param("$", ["$"], id="a lone dollar"),
        pytest.param("${ONE", ["${ONE"], id="an open brace"),
        pytest.param("${ONE:-${ONE}}", ["${ONE:-1}"], id="a variable within a shell form"),
        pytest.param("${ONE-x}", [""], id="a dash belongs to the name, of a variable that is unset"),
        pytest.param("$OPEN", ["it s", "open till the end"], id="an open quote in a value ends with it"),
        pytest.param("$SLASHES", ["a b", r"\x41"], id="a backslash in a value protects one character"),
    ],
)
def test_variables_are_expanded_as_systemd_does(word: str, expanded: list[str]) -> None:
    assert quoting.expand_words(["/bin/x", word], ENVIRONMENT) == ["/bin/x", *expanded]


def test_the_program_itself_is_never_expanded() -> None:
    assert quoting.expand_words(["${ONE}", "$ONE"], ENVIRONMENT) == ["${ONE}", "1"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (r"\x41\101\u00e9\U0001f600\s", "AA\u00e9\U0001f600 "),
        (r"\x4", r"\x4"),
        (r"\xzz", r"\xzz"),
        (r"\000", r"\000"),
        (r"\ud800", r"\ud800"),
        (r"\8", r"\8"),
        ("end\\", "end\\"),
    ],
)
def test_an_escape_is_read_or_stays_as_it_is(text: str, word: str) -> None:
    assert quoting.split_words(text) == [word]


def test_specifiers_follow_from_the_name_the_system_and_the_host() -> None:
    specifiers = Specifiers(split(r"my-app@a-b\x2dc.service"), {"H": "node-a"})
    resolved = specifiers.resolve("%n|%N|%p|%P|%i|%I|%j|%f|%H|%t|%h|%%n")
    assert resolved == (
        r"my-app@a-b\x2dc.service|my-app@a-b\x2dc|my-app|my/app|a-b\x2dc|a/b-c|app|/a/b-c|node-a|/run|/root|%n"
    )


def test_a_specifier_that_nobody_knows_stays_as_it_is() -> None:
    specifiers = Specifiers(split("a.service"))
    assert specifiers.resolve("%{http_code} +%F %H %") == "%{http_code} +%F %H %"
    assert specifiers.awaits_host("%H")
    assert not Specifiers(split("a.service"), {}).awaits_host("%H")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20min", 1200.0),
        ("5 minute", 300.0),
        ("1 day", 86400.0),
        ("900s", 900.0),
        ("90", 90.0),
        ("0", 0.0),
        ("1.5s", 1.5),
        ("1h 30min", 5400.0),
        ("1min20s", 80.0),
        ("250ms", 0.25),
        ("2M", 2 * 2629800.0),
        ("infinity", None),
    ],
)
def test_time_spans(text: str, seconds: float | None) -> None:
    assert timespan.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-1", "1..5s", "s", "9" * 30, "5 min x", "infinity s"])
def test_what_is_no_time_span_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        timespan.parse(text)


def test_a_timeout_of_zero_is_none_at_all() -> None:
    assert timespan.parse_timeout("0") is None
    assert timespan.parse_timeout("infinity") is None
    assert timespan.parse_timeout("5") == 5.0


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("1G", 1 << 30), ("1.5K", 1536), ("7", 7), ("7B", 7), ("2 T", 2 << 40)]
)
def test_sizes_are_to_the_base_of_1024(text: str, size: int) -> None:
    assert quantities.size(text) == size


@pytest.mark.parametrize("text", ["", "64m", "M", "-1", "1GB", "9999999999E", "1.G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        quantities.size(text)


def test_booleans_in_systemds_words() -> None:
    assert all(quantities.boolean(word) for word in ("1", "yes", "Y", "true", "T", "ON"))
    assert not any(quantities.boolean(word) for word in ("0", "no", "N", "false", "F", "off"))
    with pytest.raises(BadValue):
        quantities.boolean("maybe")


@pytest.mark.parametrize(
    ("text", "number", "name"),
    [
        ("SIGTERM", 15, "SIGTERM"),
        ("kill", 9, "SIGKILL"),
        ("3", 3, "SIGQUIT"),
        ("RTMIN+3", 37, "SIGRTMIN+3"),
        ("SIGRTMAX-1", 63, "SIGRTMIN+29"),
        ("WINCH", 28, "SIGWINCH"),
    ],
)
def test_signals_by_name_and_number(text: str, number: int, name: str) -> None:
    assert quantities.signal_number(text) == number
    assert quantities.signal_name(text) == name


@pytest.mark.parametrize("text", ["", "SIGTREM", "0", "65", "RTMIN+99", "32"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        quantities.signal_number(text)


def test_exit_statuses_are_codes_names_and_signals() -> None:
    assert quantities.exit_status(["143", "TEMPFAIL", "SIGKILL", "143"]) == ExitStatus(
        codes=(143, 75), signals=("SIGKILL",)
    )
    with pytest.raises(BadValue):
        quantities.exit_status(["256"])


@pytest.mark.parametrize(
    ("name", "text", "soft", "hard"),
    [
        ("NOFILE", "1024:4096", 1024, 4096),
        ("NOFILE", "infinity", None, None),
        ("CORE", "1G:infinity", 1 << 30, None),
        ("CPU", "1min", 60, 60),
        ("CPU", "500ms", 1, 1),
        ("RTTIME", "2s", 2_000_000, 2_000_000),
        ("NICE", "-5", 25, 25),
    ],
)
def test_limits_are_in_the_units_of_setrlimit(name: str, text: str, soft: Any, hard: Any) -> None:
    assert quantities.limit(name, text) == Limit(soft=soft, hard=hard)


@pytest.mark.parametrize("text", ["4096:1024", "infinity:1", "many", "1:2:3", ""])
def test_a_limit_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        quantities.limit("NOFILE", text)


def test_environment_assignments_are_quoted_words() -> None:
    pairs, others = environment.assignments("A=1 \"B=two words\" 'C=3' D='x y' junk 1X=2")
    assert pairs == [("A", "1"), ("B", "two words"), ("C", "3"), ("D", "x y")]
    assert others == ["junk", "1X=2"]


def test_an_environment_file_has_comments_quotes_and_continued_lines() -> None:
    text = (
        "# comment \\\nstill comment\n"
        "A=plain value  \n; c\n"
        'B="two\nlines"\n'
        "C='$x \\ y'\n"
        'D="a \\"b\\" \\n"\n'
        "E=one \\\n  two\n"
        "F=\nnot an assignment\n1G=x\nH=a#b\n"
        "I=it's\n"
    )
    assert environment.parse_file(text) == [
        ("A", "plain value"),
        ("B", "two\nlines"),
        ("C", "$x \\ y"),
        ("D", 'a "b" \\n'),
        ("E", "one   two"),
        ("F", ""),
        ("H", "a#b"),
        ("I", "it's"),
    ]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        pytest.param('A=it\'s "so"', [("A", 'it\'s "so"')], id="a quote inside a value is a character"),
        pytest.param("A='x'\"y\" 'z'", [("A", "xyz")], id="a quote may follow a quoted part"),
        pytest.param("A='x'y'z'", [("A", "xy'z'")], id="a quote after a bare character is a character"),
        pytest.param("A=' x '  \t", [("A", " x ")], id="blanks inside quotes stay, those at the end go"),
        pytest.param("A=x \\\n\nB=1", [("A", "x "), ("B", "1")], id="a backslash keeps the blank before it"),
        pytest.param("A=1\r\nB=2\r\n", [("A", "1"), ("B", "2")], id="lines may end as on Windows"),
        pytest.param("A=x\\\r\nB=2", [("A", "x"), ("B", "2")], id="a backslash eats one character"),
        pytest.param("A=x\\", [("A", "x")], id="a backslash ends the file"),
        pytest.param("A='open\nB=1", [("A", "open\nB=1")], id="an open quote goes on to the end"),
        pytest.param("# a\\\\\nA=1", [("A", "1")], id="a comment ends after two backslashes"),
        pytest.param("A\nB=1", [("B", "1")], id="a name alone assigns nothing"),
        pytest.param(" A = 1 ", [("A", "1")], id="blanks around name and value go"),
        pytest.param("export A=1", [], id="export is no part of the form"),
        pytest.param("A=1\nA=2", [("A", "1"), ("A", "2")], id="both of two assignments, in order"),
        pytest.param("=A=1\nB=2", [("B", "2")], id="no name"),
        pytest.param("A=x#y ;z", [("A", "x#y ;z")], id="a comment begins only where a line does"),
    ],
)
def test_an_environment_file_is_read_as_systemd_reads_it(text: str, pairs: list[tuple[str, str]]) -> None:
    assert environment.parse_file(text) == pairs
