"""Option file and command line: what each word does, which errors are told, and where."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

import pytest

from smtpf.journal.message import Message
from smtpf.settings.language import EXIT_USAGE, UNKNOWN_IGNORED, Loaded, Names, Problem, load, log_unknown
from smtpf.settings.option import AnyOption, Flag, Level, Number, Text, Words
from smtpf.settings.process_options import FILE, HELP, INTERFACES, QUIT, RESTART, VERSION

AFTER = Number("smtp-drop-after", 5, "Refusals.", least=0)
BLACK_LISTS = Words("dns-bl", "", "Lists.", runtime=False)
REPORT = Words("report-to", "postmaster", "Who.")
POLICY = Text("clamd-policy", "reject", "Policy.", words=("none", "reject", "discard"))
REQUIRE_MX = Flag("mail-require-mx", True, "MX.", aliases=("require-sender-mx",))
COMPRESSED = Words("deny-compressed-name", "*.bat;*.com", "Names.", aliases=("deny-zip-name",))
SOA = Level("uri-valid-soa", "-", "SOA.")
GONE = Flag("smtp-drop-rset", False, "RSET never ends a connection.", ignored=True)
PAD = Text("rfc2821-pad-reply-octet", "", "Pad.")
KEY = Words("grey-key", "ptr,mail,rcpt", "Key.", words=("ip", "ptr", "mail", "rcpt"), signs="+-!")
OPTIONS: tuple[AnyOption, ...] = (
    AFTER, BLACK_LISTS, REPORT, POLICY, REQUIRE_MX, COMPRESSED, SOA, GONE, PAD, KEY, INTERFACES, HELP, QUIT, RESTART, VERSION,
)  # fmt: skip


def holding(content: str | bytes, path: str = FILE.default) -> Callable[[str], bytes]:
    """A file system in which only ``path`` exists."""

    def read(asked: str) -> bytes:
        if asked != path:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", asked)
        return content if isinstance(content, bytes) else content.encode()

    return read


def from_file(content: str | bytes, *argv: str) -> Loaded:
    return load(argv, OPTIONS, read=holding(content))


def told(loaded: Loaded) -> list[str]:
    return [str(problem) for problem in loaded.problems]


def test_every_error_is_told_with_file_line_and_nearest_name() -> None:
    loaded = from_file("+mail-require-mix\nsmtp-drop-after=many\n\n+smtp-drop-after=3\nclamd-policy=rejekt foo bar\n")
    assert told(loaded) == [
        '/etc/smtpf/smtpf.cf:1: error: no option is called "mail-require-mix"; "mail-require-mx" is the nearest name',
        "/etc/smtpf/smtpf.cf:2: error: \"smtp-drop-after\" takes a number, not 'many'",
        '/etc/smtpf/smtpf.cf:4: error: "+smtp-drop-after=3" has both a sign and a value; write smtp-drop-after=3',
        "/etc/smtpf/smtpf.cf:5: error: \"clamd-policy\" takes one of none|reject|discard, not 'rejekt'",
        '/etc/smtpf/smtpf.cf:5: error: "foo" is not an option (write +name, -name or name=value); the line would be ignored from here on',
    ]
    assert loaded.exit_status == 1
    assert loaded.settings[AFTER] == 5


def test_lenient_makes_warnings_of_errors_and_leaves_those_settings_alone() -> None:
    loaded = from_file("nonesuch=1\nsmtp-drop-after=-1 smtp-drop-after=7\n+lenient\n")
    assert [problem.is_error for problem in loaded.problems] == [False, False]
    assert loaded.exit_status == 0
    assert loaded.settings[AFTER] == 7


@pytest.mark.parametrize(("text", "kept"), [("ip,colour,mail", ("ip", "mail")), ("ip -colour !mail", ("ip", "!mail")), ("colour", ())])
def test_lenient_leaves_unknown_words_out_of_a_list(text: str, kept: tuple[str, ...]) -> None:
    loaded = from_file(f'grey-key="{text}"\n+lenient\n')
    assert told(loaded) == [f'/etc/smtpf/smtpf.cf:1: warning: "grey-key" takes a list of ip|ptr|mail|rcpt, not {unknown(text)!r}']
    assert loaded.exit_status == 0
    assert loaded.settings[KEY] == kept


def unknown(text: str) -> str:
    return re.findall(r"[+!-]?colour", text)[0]


def test_lenient_from_the_command_line_covers_the_file_but_not_stray_arguments() -> None:
    loaded = from_file("nonesuch=1\n", "+lenient", "help")
    assert [problem.is_error for problem in loaded.problems] == [False, True]
    assert loaded.exit_status == EXIT_USAGE


def test_names_let_pass_are_logged_by_number() -> None:
    written: list[tuple[Message, str]] = []
    log_unknown(from_file("nonesuch=1 smtp-drop-after=x\n+lenient\n").problems, lambda message, name: written.append((message, name)))
    assert written == [(UNKNOWN_IGNORED, "nonesuch")]
    assert UNKNOWN_IGNORED.format % "nonesuch" == 'option "nonesuch" unknown, ignored'


def test_an_old_name_works_everywhere_and_is_told_once() -> None:
    loaded = from_file("-require-sender-mx\n+require-sender-mx\n", "-REQUIRE-SENDER-MX", "deny-zip-name+=*.scr")
    assert not loaded.settings[REQUIRE_MX]
    assert loaded.settings[COMPRESSED] == ("*.bat", "*.com", "*.scr")
    assert told(loaded) == [
        '/etc/smtpf/smtpf.cf:1: warning: "require-sender-mx" is the old name of "mail-require-mx"',
        'command line: warning: "deny-zip-name" is the old name of "deny-compressed-name"',
    ]


def test_a_dropped_option_is_accepted_without_effect_and_told_once() -> None:
    loaded = from_file("+smtp-drop-rset\nsmtp-drop-rset=rubbish\n")
    assert told(loaded) == ['/etc/smtpf/smtpf.cf:1: warning: "smtp-drop-rset" no longer does anything: RSET never ends a connection.']
    assert not loaded.settings.changed(GONE)


@pytest.mark.parametrize(
    ("content", "result"),
    [
        ("interface-ip=192.0.2.1", ("192.0.2.1",)),
        ("interface-ip=192.0.2.1\ninterfaces=192.0.2.2", ("192.0.2.2",)),
        ("interfaces=192.0.2.2\ninterface-ip=192.0.2.1", ("192.0.2.2",)),
    ],
)
def test_interface_ip_counts_only_while_interfaces_is_not_set(content: str, result: tuple[str, ...]) -> None:
    assert from_file(content).settings[INTERFACES] == result


def test_a_sign_is_refused_for_a_text_but_may_be_its_value() -> None:
    loaded = from_file("-dns-bl\n+rfc2821-pad-reply-octet\n")
    assert [problem.is_error for problem in loaded.problems] == [False, False]
    assert (loaded.settings[BLACK_LISTS], loaded.settings[PAD]) == ((), "")
    assert from_file("rfc2821-pad-reply-octet=+").settings[PAD] == "+"


def test_append_starts_from_the_default_and_assignment_takes_a_leading_semicolon_as_it_is() -> None:
    assert from_file("report-to+=a@example.com").settings.text(REPORT) == "postmaster;a@example.com"
    assert from_file("report-to=;a@example.com").settings.text(REPORT) == ";a@example.com"


def test_append_that_makes_a_bad_value_is_an_error() -> None:
    loaded = from_file("smtp-drop-after+=7")
    assert loaded.exit_status == 1
    assert loaded.settings[AFTER] == 5


@pytest.mark.parametrize(
    "line",
    ["report-to='open", "report-to=\"it's", "report-to=end\\", "-- +mail-require-mx", "+ +mail-require-mx", "++mail-require-mx", '""'],
)
def test_a_line_that_cannot_be_read_to_its_end_is_an_error(line: str) -> None:
    loaded = from_file(f"\n{line}\nsmtp-drop-after=8\n")
    assert [(problem.line, problem.is_error) for problem in loaded.problems] == [(2, True)]
    assert loaded.settings[AFTER] == 8


def test_quotes_in_a_comment_are_not_looked_at() -> None:
    assert from_file("smtp-drop-after=8 # don't\n# isn't\n  # won't\n").problems == ()


def test_lines_may_be_long_and_end_in_crlf_and_start_with_a_byte_order_mark() -> None:
    addresses = ";".join(f"user{number}@example.com" for number in range(2000))
    loaded = from_file(b"\xef\xbb\xbfsmtp-drop-after=8\r\nreport-to=" + addresses.encode() + b"\r\n")
    assert loaded.problems == ()
    assert len(loaded.settings[REPORT]) == 2000


def test_octets_that_are_not_utf8_are_an_error_of_their_line() -> None:
    loaded = from_file(b"report-to=\xff\xfe\nsmtp-drop-after=8\n")
    assert told(loaded) == ["/etc/smtpf/smtpf.cf:1: error: the line is not UTF-8"]
    assert loaded.settings[AFTER] == 8


def test_a_missing_default_file_is_a_warning_and_a_missing_named_file_an_error_even_with_lenient() -> None:
    nothing = holding("", path="/nowhere")
    assert [(problem.is_error, problem.file) for problem in load([], OPTIONS, read=nothing).problems] == [(False, FILE.default)]
    named = load(["file=/a.cf", "+lenient"], OPTIONS, read=nothing)
    assert told(named) == ["/a.cf: error: there is no such file"]
    assert named.exit_status == 1


def test_a_default_file_that_may_not_be_read_is_an_error() -> None:
    def forbidden(path: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    assert told(load([], OPTIONS, read=forbidden)) == ["/etc/smtpf/smtpf.cf: error: cannot be read: Permission denied"]


def test_an_empty_file_option_means_no_file_at_all() -> None:
    def unread(path: str) -> bytes:
        raise AssertionError(f"{path} was read")

    loaded = load(["file=", "smtp-drop-after=8"], OPTIONS, read=unread)
    assert loaded.problems == ()
    assert (loaded.settings[AFTER], loaded.settings[FILE]) == (8, "")


def test_the_command_line_wins_option_by_option_and_appends_to_the_file() -> None:
    loaded = from_file("dns-bl=a.example\nsmtp-drop-after=7", "dns-bl+=b.example")
    assert loaded.settings[BLACK_LISTS] == ("a.example", "b.example")
    assert loaded.settings[AFTER] == 7


def test_actions_come_in_the_order_in_which_they_are_done() -> None:
    loaded = from_file("+quit", "restart=7", "help=/tmp/new.cf", "-version")
    assert loaded.actions == (VERSION, HELP, QUIT, RESTART)
    assert loaded.settings.text(RESTART) == "7"
    assert from_file("").actions == ()


def test_an_action_with_an_empty_value_is_not_requested() -> None:
    assert from_file("help=").actions == ()


def test_a_problem_on_the_command_line_has_no_line_number() -> None:
    assert str(Problem("command line", 0, "bad")) == "command line: error: bad"


def test_two_options_of_one_name_are_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match=re.escape("two options are called require-sender-mx")):
        Names((REQUIRE_MX, Flag("require-sender-mx", True, "Twice.")))
