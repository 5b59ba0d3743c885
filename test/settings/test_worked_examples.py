"""The worked examples of spec chapter options, section 12, by their numbers.

The options are test-local ones with the names, defaults and kinds of the published table, for the modules that own them
need not be known here. What goes beyond this room is proved where it is done: who may say OPTN (25) by the admin commands,
the time black-listed clients get (30) by the session, the descriptor limit (31) and what an action does (22, 32, 33) by the
process room, how verbose words are understood (34) by the journal.
"""

from __future__ import annotations

import errno

import pytest

from smtpf.settings import process_options
from smtpf.settings.dump import dump, setting
from smtpf.settings.language import EXIT_USAGE, Loaded, load
from smtpf.settings.option import AnyOption, Flag, Level, Number, Option, Text, Words
from smtpf.settings.process_options import FILE, HELP, QUIT, RESTART_IF, VERSION
from smtpf.settings.runtime import INVALID_VALUE, NEEDS_RESTART, UNKNOWN_OPTION, Changed, Refused, change

TABLE: tuple[AnyOption, ...] = (
    Flag("smtp-slow-reply", False, "."),
    Flag("smtp-auth-white", False, "."),
    Number("smtp-drop-after", 5, "."),
    Flag("smtp-drop-unknown", False, "."),
    Text("smtp-reject-file", "", ".", runtime=False),
    Words("dns-bl", "", ".", runtime=False),
    Words("dns-gl", "", ".", runtime=False),
    Flag("smtp-strict-relay", False, "."),
    Flag("mail-strict", False, "."),
    Flag("relay-reply", False, "."),
    Flag("rate-drop", True, "."),
    Number("rate-throttle", 20, "."),
    Text("smtp-dsn-reply-to", "", "."),
    Text("emew-secret", "", ".", secret=True),
    Text("click-secret", "", ".", secret=True),
    Words("mail-bl-domains", ("gmail.*", "hotmail.*"), ".", runtime=False),
    Level("uri-valid-soa", False, "."),
    Flag("uri-bl-helo", False, "."),
    Words("verbose", "info,smtp=1,tls", "."),
)
PROCESS: tuple[AnyOption, ...] = tuple(value for value in vars(process_options).values() if isinstance(value, Option))
OPTIONS = TABLE + PROCESS
BY_NAME = {option.name: option for option in OPTIONS}


def configured(files: dict[str, str] | str, *argv: str) -> Loaded:
    """Settings from these option files (one of the default name, when just its content is given) and command line words."""
    contents = {FILE.default: files} if isinstance(files, str) else files

    def read(path: str) -> bytes:
        if path not in contents:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return contents[path].encode()

    return load(argv, OPTIONS, read=read)


@pytest.mark.parametrize(
    ("number", "content", "line", "texts", "errors"),
    [
        (1, "+smtp-slow-reply -smtp-auth-white  smtp-drop-after=7", "",
         {"smtp-slow-reply": "+", "smtp-auth-white": "-", "smtp-drop-after": "7"}, 0),
        (2, "+smtp-slow-reply -smtp-auth-white  smtp-drop-after=7", "smtp-drop-after=9", {"smtp-drop-after": "9"}, 0),
        (3, "SMTP-DROP-UNKNOWN=1", "", {"smtp-drop-unknown": "+"}, 0),
        (4, 'smtp-reject-file="/etc/my file.txt"', "", {"smtp-reject-file": "/etc/my file.txt"}, 0),
        (5, "dns-bl=one.example;two.example\ndns-bl+=three.example", "", {"dns-bl": "one.example;two.example;three.example"}, 0),
        (6, "dns-gl+=x.example # note +smtp-strict-relay", "", {"dns-gl": "x.example", "smtp-strict-relay": "-"}, 0),
        (7, "unknown-option=3 +mail-strict", "", {"mail-strict": "+"}, 1),
        (8, "foo +relay-reply", "", {"relay-reply": "-"}, 1),
        (9, "--\n-rate-drop", "", {"rate-drop": "-"}, 0),
        (10, "  # +relay-reply", "", {"relay-reply": "-"}, 0),
        (11, "rate-throttle=0x10", "", {"rate-throttle": "0x10"}, 0),
        (12, "smtp-dsn-reply-to='it\\'s'", "", {"smtp-dsn-reply-to": "it's"}, 0),
        (13, 'emew-secret="quote \\"me\\" now"', "", {"emew-secret": 'quote "me" now'}, 0),
        (14, "click-secret=a\\ b", "", {"click-secret": "a b"}, 0),
        (15, "mail-bl-domains=\nmail-bl-domains+=only.example", "", {"mail-bl-domains": "only.example"}, 0),
        (16, "+uri-valid-soa=2", "", {"uri-valid-soa": "-"}, 1),
        (17, "uri-valid-soa=2", "", {"uri-valid-soa": "2"}, 0),
        (18, "-dns-bl", "", {"dns-bl": ""}, 0),
        (19, "smtp-drop-after=", "", {"smtp-drop-after": ""}, 0),
        (20, "file=/other.cf", "", {"file": "/etc/smtpf/smtpf.cf"}, 0),
        (23, "", "smtp-drop-after=3 extra smtp-drop-after=4", {"smtp-drop-after": "3"}, 1),
        (34, 'verbose="info, smtp=2"', "", {"verbose": "info, smtp=2"}, 0),
    ],
)  # fmt: skip
def test_file_and_command_line(number: int, content: str, line: str, texts: dict[str, str], errors: int) -> None:
    loaded = configured(content, *line.split())
    assert {name: loaded.settings.text(BY_NAME[name]) for name in texts} == texts
    assert sum(problem.is_error for problem in loaded.problems) == errors


@pytest.mark.parametrize(
    ("number", "content", "name", "value"),
    [
        (11, "rate-throttle=0x10", "rate-throttle", 16),
        (17, "uri-valid-soa=2", "uri-valid-soa", 2),
        (19, "smtp-drop-after=", "smtp-drop-after", 0),
    ],
)
def test_values(number: int, content: str, name: str, value: int) -> None:
    assert configured(content).settings[BY_NAME[name]] == value


@pytest.mark.parametrize(
    ("number", "content", "name", "dumped"),
    [
        (3, "SMTP-DROP-UNKNOWN=1", "smtp-drop-unknown", "#-smtp-drop-unknown\n+smtp-drop-unknown\n"),
        (4, 'smtp-reject-file="/etc/my file.txt"', "smtp-reject-file", '#smtp-reject-file=\nsmtp-reject-file="/etc/my file.txt"\n'),
        (5, "dns-bl=one.example;two.example\ndns-bl+=three.example", "dns-bl",
         "#dns-bl=\ndns-bl=one.example\ndns-bl+=two.example\ndns-bl+=three.example\n"),
        (13, 'emew-secret="quote \\"me\\" now"', "emew-secret", '#emew-secret=\nemew-secret="quote \\"me\\" now"\n'),
        (14, "click-secret=a\\ b", "click-secret", '#click-secret=\nclick-secret="a b"\n'),
        (17, "uri-valid-soa=2", "uri-valid-soa", "#-uri-valid-soa\nuri-valid-soa=2\n"),
        (20, "file=/other.cf", "file", "file=/etc/smtpf/smtpf.cf\n"),
    ],
)  # fmt: skip
def test_dumped_setting(number: int, content: str, name: str, dumped: str) -> None:
    assert setting(configured(content).settings, BY_NAME[name]) == dumped


def test_18_a_sign_for_a_list_is_refused_with_a_warning() -> None:
    assert [problem.is_error for problem in configured("-dns-bl").problems] == [False]


def test_21_a_dump_takes_the_place_of_the_file_it_was_made_from() -> None:
    old = "+smtp-slow-reply dns-bl=a.example;b.example\nemew-secret='a \"b\" c' uri-valid-soa=2\n"
    merged = configured({"/a.cf": old}, "+help", "file=/a.cf", "rate-throttle=5")
    assert merged.actions == (HELP,)
    read_back = configured({"b.cf": dump(merged.settings)}, "file=b.cf")
    assert read_back.problems == ()
    assert read_back.actions == ()
    expected = configured({"b.cf": old}, "file=b.cf", "rate-throttle=5")
    assert read_back.settings == expected.settings


def test_22_version_goes_before_help() -> None:
    assert configured("", "+version", "+help").actions == (VERSION, HELP)


def test_23_an_unexpected_argument_is_a_usage_error() -> None:
    assert configured("", "smtp-drop-after=3", "extra", "smtp-drop-after=4").exit_status == EXIT_USAGE == 64


@pytest.mark.parametrize(
    ("number", "argument", "texts"),
    [
        (24, "+smtp-slow-reply", {"smtp-slow-reply": "+"}),
        (28, "smtp-drop-after=2 rate-throttle=0", {"smtp-drop-after": "2", "rate-throttle": "0"}),
        (29, "+uri-bl-helo", {"uri-bl-helo": "+"}),
    ],
)
def test_optn_changes(number: int, argument: str, texts: dict[str, str]) -> None:
    changed = change(configured("").settings, argument)
    assert isinstance(changed, Changed)
    assert {option.name: changed.settings.text(option) for option in changed.options} == texts


@pytest.mark.parametrize(
    ("number", "argument", "line"),
    [
        (26, "-daemon", "501 5.5.4 daemon requires restart #323 %s"),
        (27, "DNS-BL=x.example", "501 5.5.4 dns-bl requires restart #323 %s"),
    ],
)
def test_optn_refuses(number: int, argument: str, line: str) -> None:
    refused = change(configured("").settings, argument)
    assert isinstance(refused, Refused)
    assert refused.reply.format % (refused.name, "%s") == line


def test_the_replies_are_the_published_ones() -> None:
    assert [reply.format for reply in (NEEDS_RESTART, UNKNOWN_OPTION, INVALID_VALUE)] == [
        "501 5.5.4 %s requires restart #323 %s",
        "504 5.5.4 option %s unknown #1121 %s",
        "501 5.5.4 option %s invalid value #1122 %s",
    ]


@pytest.mark.parametrize(("number", "word", "action"), [(32, "+restart-if", RESTART_IF), (33, "+quit", QUIT)])
def test_actions_are_requested(number: int, word: str, action: AnyOption) -> None:
    assert configured("", word).actions == (action,)
