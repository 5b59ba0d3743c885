"""Targets against real sockets, pipes and files."""

import json
import os
import socket

import pytest
from twisted.internet.task import Clock

from smtpf.journal import layout
from smtpf.journal.datagram import FULL_PAUSE, RECONNECT_PAUSE, DatagramTarget
from smtpf.journal.journal import Journal
from smtpf.journal.message import err, info
from smtpf.journal.stream import FileTarget, StreamTarget
from smtpf.journal.targets import LOG_FORMAT, LOG_TARGET, choose_target, open_target
from smtpf.settings.option import OptionError
from smtpf.settings.store import Settings

READY = info(599, "ready", always=True)
TEXT = err(1, "%s")


class Daemon:
    """A log daemon's datagram socket, as syslogd has it on /dev/log."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def read(self):
        lines = []
        while True:
            try:
                lines.append(self.socket.recv(65536))
            except BlockingIOError:
                return lines

    def die(self):
        self.socket.close()
        os.unlink(self.path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path / "log")
    yield daemon
    daemon.socket.close()


def bodies(datagrams):
    return [datagram.decode().partition("]: ")[2] for datagram in datagrams]


def test_syslog_daemon_gets_facility_mail_ident_and_pid(clock, daemon):
    target = open_target(clock, "syslog", syslog_socket=daemon.path)
    Journal(target, pid=99).write(READY)
    (datagram,) = daemon.read()
    assert datagram.startswith(b"<22>") and datagram.endswith(b" smtpf[99]: #599 ready")
    target.close()


def test_syslog_daemon_gets_json_when_asked(clock, daemon):
    target = open_target(clock, "syslog", "json", syslog_socket=daemon.path)
    Journal(target).write(READY)
    assert json.loads(bodies(daemon.read())[0])["num"] == 599
    target.close()


def test_full_socket_keeps_lines_in_order_and_never_blocks(clock, daemon):
    target = DatagramTarget(clock, daemon.path, layout.syslog)
    journal = Journal(target)
    for number in range(500):
        journal.write(TEXT, number)
    seen = bodies(daemon.read())
    assert 0 < len(seen) < 500
    for _ in range(500):
        clock.advance(FULL_PAUSE)
        seen += bodies(daemon.read())
    assert seen == [f"#001 {number}" for number in range(500)]
    target.close()


def test_lines_beyond_the_bound_are_counted_and_told(clock, daemon):
    target = DatagramTarget(clock, daemon.path, layout.syslog, kept=5)
    journal = Journal(target)
    for number in range(500):
        journal.write(TEXT, number)
    seen = []
    for _ in range(20):
        seen += bodies(daemon.read())
        clock.advance(FULL_PAUSE)
    assert seen[-1] == f"#1190 log lines lost={500 - (len(seen) - 1)}"
    target.close()


def test_restarted_daemon_is_found_again_and_nothing_is_lost(clock, tmp_path):
    daemon = Daemon(tmp_path / "log")
    target = DatagramTarget(clock, daemon.path, layout.syslog)
    journal = Journal(target)
    journal.write(TEXT, "before")
    assert bodies(daemon.read()) == ["#001 before"]
    daemon.die()
    journal.write(TEXT, "between")
    clock.advance(RECONNECT_PAUSE)
    daemon = Daemon(tmp_path / "log")
    journal.write(TEXT, "after")
    assert daemon.read() == []
    clock.advance(RECONNECT_PAUSE)
    assert bodies(daemon.read()) == ["#001 between", "#001 after"]
    daemon.die()
    daemon = Daemon(tmp_path / "log")
    journal.write(TEXT, "at once")
    assert bodies(daemon.read()) == ["#001 at once"]
    target.close()
    daemon.die()


def test_what_no_daemon_took_goes_to_standard_error_at_the_end(clock, tmp_path):
    spilled = []
    target = DatagramTarget(clock, str(tmp_path / "none"), layout.syslog, spill=spilled.append)
    Journal(target).write(READY)
    target.close()
    assert len(spilled) == 1 and spilled[0].endswith(b"#599 ready\n")
    assert not clock.getDelayedCalls()


def test_closing_sends_what_a_full_socket_kept(clock, daemon):
    spilled = []
    target = DatagramTarget(clock, daemon.path, layout.syslog, spill=spilled.append)
    journal = Journal(target)
    written = 0
    while not clock.getDelayedCalls():
        journal.write(TEXT, written)
        written += 1
    seen = daemon.read()
    target.close()
    assert len(seen) + len(daemon.read()) == written and not spilled


def test_native_journal_datagram_arrives(clock, daemon):
    target = open_target(clock, "journal", journal_socket=daemon.path)
    Journal(target).write(READY)
    (datagram,) = daemon.read()
    assert b"MESSAGE=#599 ready\n" in datagram and b"SMTPF_NUM=599\n" in datagram
    target.close()


def test_file_gets_the_lines_of_a_turn_at_its_end(clock, tmp_path):
    path = tmp_path / "mail.log"
    target = open_target(clock, f"file!{path}", host="gateway4")
    journal = Journal(target, pid=99)
    journal.write(READY)
    journal.write(TEXT, "second")
    assert path.read_bytes() == b""
    clock.advance(0)
    lines = path.read_text().splitlines()
    assert [line.partition(" gateway4 ")[2] for line in lines] == ["smtpf[99]: #599 ready", "smtpf[99]: #001 second"]
    assert path.stat().st_mode & 0o777 & ~0o660 == 0
    target.close()


def test_file_has_every_line_when_closed(clock, tmp_path):
    path = tmp_path / "mail.log"
    target = FileTarget(clock, str(path), layout.json_line)
    journal = Journal(target)
    for number in range(1000):
        journal.write(TEXT, number)
    target.close()
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == [str(number) for number in range(1000)]
    assert not clock.getDelayedCalls()


def test_file_is_reopened_after_it_was_moved(clock, tmp_path):
    path, old = tmp_path / "mail.log", tmp_path / "mail.log.1"
    target = FileTarget(clock, str(path), layout.foreground_line)
    journal = Journal(target)
    journal.write(TEXT, "one")
    os.rename(path, old)
    assert target.reopen() is None
    journal.write(TEXT, "two")
    target.close()
    assert old.read_text().endswith("one\n") and path.read_text().endswith("two\n")
    assert "one" not in path.read_text()


def test_reopening_what_cannot_be_opened_keeps_the_old_file(clock, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "mail.log"
    target = FileTarget(clock, str(path), layout.foreground_line)
    os.rename(path, tmp_path / "kept.log")
    folder.rmdir()
    assert isinstance(target.reopen(), FileNotFoundError)
    Journal(target).write(TEXT, "still")
    target.close()
    assert (tmp_path / "kept.log").read_text().endswith("still\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_loses_lines_beyond_the_bound_only_and_never_raises(clock, tmp_path):
    target = FileTarget(clock, "/dev/full", layout.foreground_line, kept=1000)
    journal = Journal(target)
    for number in range(100):
        journal.write(TEXT, number)
    clock.advance(0)
    os.dup2(os.open(tmp_path / "space", os.O_WRONLY | os.O_CREAT), target._descriptor)
    clock.advance(1)
    lines = (tmp_path / "space").read_text().splitlines()
    assert f"#1190 log lines lost={100 - (len(lines) - 1)}" in lines[-1]
    target.close()


def test_slow_reader_of_standard_error_does_not_hold_the_program(clock):
    reading, writing = os.pipe()
    target = open_target(clock, "stderr", descriptor=writing)
    journal = Journal(target, pid=7)
    for number in range(3000):
        journal.write(TEXT, f"{number:040d}")
    clock.advance(0)
    seen = b""
    while clock.getDelayedCalls():
        seen += os.read(reading, 65536)
        clock.advance(1)
    os.close(writing)
    while more := os.read(reading, 65536):
        seen += more
    os.close(reading)
    lines = seen.decode().splitlines()
    assert [int(line.rpartition(" ")[2]) for line in lines] == list(range(3000))
    assert " smtpf:7 ERROR #001 " in lines[0]


def test_lines_before_the_reactor_runs_are_written_at_once(tmp_path):
    class NotYet(Clock):
        running = False

    path = tmp_path / "mail.log"
    target = FileTarget(NotYet(), str(path), layout.foreground_line)
    Journal(target).write(READY)
    assert path.read_text().endswith("#599 ready\n")
    target.close()


def test_stream_target_leaves_the_descriptor_open(clock):
    reading, writing = os.pipe()
    target = StreamTarget(clock, writing, layout.json_line)
    Journal(target).write(READY)
    target.close()
    os.write(writing, b"mine\n")
    os.close(writing)
    assert os.read(reading, 65536).endswith(b"mine\n")
    os.close(reading)


@pytest.mark.parametrize(
    ("text", "daemon", "chosen"),
    [
        (None, True, "syslog"),
        (None, False, "stderr"),
        ("syslog", True, "syslog"),
        ("journal", False, "journal"),
        ("file!/var/log/smtpf", False, "file!/var/log/smtpf"),
        ("STDERR", True, "stderr"),
    ],
)
def test_foreground_process_logs_to_standard_error_unless_told_otherwise(text, daemon, chosen):
    settings = Settings.of({} if text is None else {LOG_TARGET: text})
    assert choose_target(settings, daemon) == chosen


@pytest.mark.parametrize("text", ["", "nowhere", "file!", "file!relative", "syslog!x"])
def test_a_target_that_is_none_is_refused(text):
    with pytest.raises(OptionError):
        LOG_TARGET.parse(text)


def test_format_is_text_unless_json_is_asked():
    assert Settings.of()[LOG_FORMAT] == "text"
    with pytest.raises(OptionError):
        LOG_FORMAT.parse("xml")
