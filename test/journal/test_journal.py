"""What a log line says, and that no value can break it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpf.journal import layout
from smtpf.journal.journal import INTERNAL_ERROR, LONGEST_VALUE, Journal, harmless
from smtpf.journal.message import err, info, warn
from smtpf.journal.observer import FailureObserver

READY = info(599, "ready", always=True)
START = info(637, 'start %s [%s] f="%s" th=%u cn=%u cs=%lu', fields=("ptr", "ip", "flags", "threads", "sessions", "second"))
REMOVED = warn(0, 'removed previous instance of header "%s"')
SID = "k165S4285856336700"
AT = 1202362084.25


@pytest.fixture
def entries():
    return []


@pytest.fixture
def journal(entries):
    return Journal(entries.append, now=lambda: AT, pid=28585)


@pytest.fixture
def utc(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    layout.syslog_time.cache_clear()
    layout._foreground_time.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    layout.syslog_time.cache_clear()
    layout._foreground_time.cache_clear()


def test_published_examples(journal, entries):
    journal.write(START, "mail.example.net", "192.0.2.7", "", 10, 1, 1, session=SID)
    journal.write(READY)
    journal.write(INTERNAL_ERROR, "session", 12, "KeyError", "x", 0)
    assert [entry.text for entry in entries] == [
        f'{SID} #637 start mail.example.net [192.0.2.7] f="" th=10 cn=1 cs=1',
        "#599 ready",
        "0 #539 internal error session(12) KeyError: x (0)",
    ]


def test_number_zero_is_written_with_three_digits(journal, entries):
    journal.write(REMOVED, "Subject", session=SID)
    assert entries[0].text == f'{SID} #000 removed previous instance of header "Subject"'


def test_syslog_form(journal, entries, utc):
    journal.write(START, "mail.example.net", "192.0.2.7", "", 10, 1, 1, session=SID)
    expected = f'<22>Feb  7 05:28:04 smtpf[28585]: {SID} #637 start mail.example.net [192.0.2.7] f="" th=10 cn=1 cs=1'
    assert layout.syslog(entries[0]) == expected.encode()


def test_file_form_is_the_line_a_syslog_daemon_writes(journal, entries, utc):
    journal.write(READY)
    assert layout.file_line("gateway4")(entries[0]) == b"Feb  7 05:28:04 gateway4 smtpf[28585]: #599 ready\n"


@pytest.mark.parametrize(
    ("message", "word", "number"), [(READY, b"INFO", b"599"), (REMOVED, b"WARN", b"000"), (err(7, "%s"), b"ERROR", b"007")]
)
def test_foreground_form_names_the_level(journal, entries, utc, message, word, number):
    journal.write(message, *["x"] * message.format.count("%"))
    assert layout.foreground_line(entries[0]).startswith(b"2008-02-07T05:28:04 smtpf:28585 " + word + b" #" + number + b" ")


def test_json_has_the_values_by_name(journal, entries, utc):
    journal.write(START, "mail.example.net", "192.0.2.7", "", 10, 1, 1, session=SID, tid="k165S4285856336701", text="never")
    line = layout.json_line(entries[0])
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert json.loads(line) == {
        "time": "2008-02-07T05:28:04.250+00:00",
        "pid": 28585,
        "sid": SID,
        "num": 637,
        "level": "info",
        "text": 'start mail.example.net [192.0.2.7] f="" th=10 cn=1 cs=1',
        "ptr": "mail.example.net",
        "ip": "192.0.2.7",
        "flags": "",
        "threads": 10,
        "sessions": 1,
        "second": 1,
        "tid": "k165S4285856336701",
    }


def test_native_journal_form_has_fields_and_carries_line_ends_by_length(journal, entries):
    journal.write(START, "mail.example.net", "192.0.2.7", "", 10, 1, 1, session=SID)
    datagram = layout.native_journal(entries[0])
    assert b"PRIORITY=6\n" in datagram and b"SYSLOG_FACILITY=2\n" in datagram and b"SMTPF_PTR=mail.example.net\n" in datagram
    try:
        raise ValueError("odd")
    except ValueError:
        journal.failure(Failure())
    datagram = layout.native_journal(entries[1])
    head, _, rest = datagram.partition(b"SMTPF_TRACEBACK\n")
    assert head and int.from_bytes(rest[:8], "little") == len(rest) - 9


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\r\nb\0c", "a??b?c"),
        (b"a\nb\xff", "a?b\ufffd"),
        ("tab\there", "tab?here"),
        ("\x7f\x85\u2028", "???"),
        ("\udc80", "?"),
        ("é" * 600, "é" * 500),
        ("x" * 1001, "x" * 1000),
        (7, 7),
        (None, "None"),
    ],
)
def test_values_are_made_harmless(value, shown):
    assert harmless(value) == shown


@given(st.one_of(st.text(), st.binary(), st.text(min_size=900, max_size=2000)))
def test_any_value_stays_one_line_of_bounded_length(value):
    shown = harmless(value)
    octets = shown.encode("utf-8")
    assert len(octets) <= LONGEST_VALUE
    assert len(shown.splitlines()) <= 1
    assert not any(octet < 32 or octet == 127 for octet in octets)


def test_arguments_that_do_not_fit_the_format_are_written_all_the_same(journal, entries):
    journal.write(START, "only one", session=SID)
    assert [entry.message.number for entry in entries] == [539, 637]
    assert "only one" in entries[1].text


def test_failure_tells_place_and_reason(journal, entries):
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        journal.failure(Failure(), session=SID, doing="stats")
    assert entries[0].text.startswith(f"{SID} #539 internal error test_journal(")
    assert entries[0].text.endswith("stats: OSError: [Errno 28] No space left on device (28)")
    assert "Traceback" in entries[0].fields["traceback"]


def test_twisted_failures_become_539_and_its_chatter_is_left_out(journal, entries):
    log = Logger(namespace="some.part", observer=FailureObserver(journal))
    log.info("Starting factory")
    log.warn("odd")
    log.error("cannot {what}", what="listen\n")
    try:
        raise KeyError("lost")
    except KeyError:
        log.failure("unhandled")
    assert [entry.message.number for entry in entries] == [539, 539]
    assert entries[0].text == "0 #539 internal error some.part(0) error: cannot listen? (0)"
    assert "some.part: KeyError" in entries[1].text


def test_a_target_that_logs_through_twisted_does_not_go_round():
    lines = []

    def chatty(entry):
        lines.append(entry.text)
        log.error("again")

    log = Logger(namespace="x", observer=FailureObserver(Journal(chatty)))
    log.error("once")
    assert lines == ["0 #539 internal error x(0) error: once (0)"]
