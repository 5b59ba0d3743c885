"""Limits, identity, background, readiness, and the start sequence as a log reader sees it."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from smtpf.journal.journal import Journal
from smtpf.process import identity, lifecycle
from smtpf.process.detach import detach
from smtpf.process.ending import CannotStart, leave
from smtpf.process.identity import give_files, look_up
from smtpf.process.lifecycle import Lifecycle
from smtpf.process.limits import raise_limits, wanted_descriptors
from smtpf.process.listening import Answering
from smtpf.process.notify import notify
from smtpf.settings.process_options import (
    DAEMON,
    INTERFACES,
    LENIENT,
    RESTART_IF,
    RUN_GROUP,
    RUN_OPEN_FILE_LIMIT,
    RUN_PID_FILE,
    RUN_USER,
    RUN_WORK_DIR,
    SERVER_MAX_THREADS,
)
from smtpf.settings.store import Settings


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def journal(log: list[str]) -> Journal:
    return Journal(lambda entry: log.append(entry.text))


@pytest.mark.parametrize(
    ("limit", "sessions", "wanted"),
    [(1024, 200, 2048), (1024, 1000, 8192), (8192, 2000, 16384), (8192, 0, 8192), (8192, 1024, 8192), (8192, 10, 8192)],
)
def test_descriptors_follow_the_sessions(limit: int, sessions: int, wanted: int) -> None:
    assert wanted_descriptors(limit, sessions) == wanted


@pytest.fixture
def kept_limits() -> Any:
    # The functions are taken now: a test may put others in their place.
    get, put = resource.getrlimit, resource.setrlimit
    before = {kind: get(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)}
    yield
    for kind, values in before.items():
        put(kind, values)


def test_raised_limit_is_told_and_effective(journal: Journal, log: list[str], kept_limits: None) -> None:
    settings = Settings.of({RUN_OPEN_FILE_LIMIT: "64", SERVER_MAX_THREADS: "20"})
    assert raise_limits(settings, journal) == 1024
    assert log == ["#738 run-open-file-limit increased to 1024"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1024


def test_limit_that_the_system_refuses_is_told(
    journal: Journal, log: list[str], monkeypatch: pytest.MonkeyPatch, kept_limits: None
) -> None:
    def refuse(kind: int, values: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_NOFILE and values[0] > 256:
            raise ValueError("not allowed")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 256))
    assert raise_limits(Settings.of({RUN_OPEN_FILE_LIMIT: "8192"}), journal) == 256
    assert log == ["#1131 run-open-file-limit=8192 not possible, using 256"]


def test_identity_stays_when_not_started_as_root(journal: Journal) -> None:
    assert look_up(Settings.of({RUN_USER: "nobody-of-that-name"}), journal, is_root=False).uid is None


@pytest.mark.parametrize(
    ("user", "group", "line"),
    [
        ("no-such-user", "root", '#727 user "no-such-user" not found'),
        ("", "root", '#727 user "" not found'),
        ("nobody", "no-such-group", '#728 group "no-such-group" not found'),
    ],
)
def test_unknown_user_or_group_ends_the_start(journal: Journal, log: list[str], user: str, group: str, line: str) -> None:
    settings = Settings.of({RUN_USER: user, RUN_GROUP: group})
    with pytest.raises(CannotStart):
        look_up(settings, journal, is_root=True)
    assert log == [line]
    assert look_up(settings, journal, is_root=True, lenient=True).uid is None


def test_root_must_be_named_to_stay_root(journal: Journal, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_up(Settings.of({RUN_USER: "root", RUN_GROUP: "none-such"}), journal, is_root=True).uid == 0
    monkeypatch.setattr(identity.pwd, "getpwnam", lambda name: identity.pwd.struct_passwd(("toor", "x", 0, 0, "", "/", "/bin/sh")))
    with pytest.raises(CannotStart):
        look_up(Settings.of({RUN_USER: "toor", RUN_GROUP: "root"}), journal, is_root=True)
    assert log == ['#727 user "toor" not found']


@pytest.mark.parametrize(
    ("call", "number", "text"), [("chown", 729, 'chown("{path}", "nobody", "x")'), ("chmod", 730, 'chmod("{path}", 660)')]
)
def test_files_that_cannot_be_given_away_end_the_start_but_companions_do_not(
    tmp_path: Path, journal: Journal, log: list[str], monkeypatch: pytest.MonkeyPatch, call: str, number: int, text: str
) -> None:
    path = tmp_path / "cache.sq3"
    path.touch()
    whom = identity.Identity("nobody", "x", os.getuid(), os.getgid())

    def refuse(*args: Any, **named: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, call, refuse)
    give_files(whom, journal, [str(tmp_path / "missing")] if call == "chmod" else [], [str(path)])
    assert log == []
    with pytest.raises(CannotStart):
        give_files(whom, journal, [str(path)])
    assert log == [f"#{number} {text.format(path=path)} error: {os.strerror(errno.EPERM)} ({errno.EPERM})"]


def fails(number: int) -> Callable[[], Any]:
    def call() -> Any:
        raise OSError(number, os.strerror(number))

    return call


def test_parent_of_the_background_process_ends_with_0(journal: Journal) -> None:
    left: list[int] = []
    detach(Clock(), journal, fork=lambda: 4711, leave=left.append)
    assert left == [0]


def test_failed_fork_and_failed_session_end_the_start(journal: Journal, log: list[str]) -> None:
    with pytest.raises(CannotStart):
        detach(Clock(), journal, fork=fails(errno.EAGAIN))
    with pytest.raises(CannotStart):
        detach(Clock(), journal, fork=lambda: 0, setsid=fails(errno.EPERM))
    assert log == [
        f"#735 fork failed: {os.strerror(errno.EAGAIN)} ({errno.EAGAIN})",
        f"#736 set process group ID failed: {os.strerror(errno.EPERM)} ({errno.EPERM})",
    ]


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_hears_that_the_node_is_ready(tmp_path: Path, abstract: bool) -> None:
    name = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        assert notify({"NOTIFY_SOCKET": name}, "READY=1", "STATUS=ready")
        assert manager.recv(100) == b"READY=1\nSTATUS=ready"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_no_service_manager_is_no_error(environment: dict[str, str]) -> None:
    assert not notify(environment, "READY=1")


class Reactor(Clock):
    """A reactor that remembers what was put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.triggers: list[Any] = []
        self.stopped = False

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers = [each for each in self.readers if each is not reader]

    def addSystemEventTrigger(self, *args: Any) -> None:
        self.triggers.append(args)

    def stop(self) -> None:
        self.stopped = True


class NoSessions:
    def __len__(self) -> int:
        return 0

    async def stop(self) -> None: ...

    def abort(self) -> None: ...


def test_start_and_end_as_a_log_reader_sees_them(
    tmp_path: Path, journal: Journal, log: list[str], monkeypatch: pytest.MonkeyPatch, kept_limits: None
) -> None:
    monkeypatch.setattr(lifecycle.Signals, "install", lambda self: None)
    monkeypatch.chdir(tmp_path)
    pid_file = tmp_path / "smtpf.pid"
    settings = Settings.of({INTERFACES: "127.0.0.1:0", RUN_PID_FILE: str(pid_file), RUN_USER: "root", RUN_WORK_DIR: str(tmp_path)})
    monkeypatch.setattr(lifecycle, "become", lambda settings, identity, journal: None)
    reactor = Reactor()
    life = Lifecycle(settings, journal, reactor, NoSessions())
    life.open()
    assert life.host_name
    assert life.descriptors > 0
    assert reactor.readers == []
    life.settle()
    assert pid_file.exists()
    life.serve(lambda bound: Answering(Factory.forProtocol(Protocol), reactor), lambda: None)
    assert len(reactor.readers) == 1
    life.close()
    assert reactor.readers == []
    assert not pid_file.exists()
    assert [line.split()[0] for line in log if not line.startswith(("#738", "#1131"))] == ["#604", "#605", "#606", "#595", "#599", "#732"]


def test_machine_without_a_name_ends_the_start(
    journal: Journal, log: list[str], monkeypatch: pytest.MonkeyPatch, kept_limits: None
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    with pytest.raises(CannotStart):
        Lifecycle(Settings.of({RUN_USER: "root"}), journal, Reactor(), NoSessions()).open()
    assert log[-1] == f"#734 host info error: {os.strerror(errno.ENOENT)} ({errno.ENOENT})"


def test_prepare_handles_the_predecessor_before_it_forks(
    tmp_path: Path, journal: Journal, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[bool] = []
    monkeypatch.setattr(lifecycle, "detach", lambda reactor, journal: forked.append(True))
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    texts = {RUN_PID_FILE: str(tmp_path / "none"), DAEMON: "+"}
    lifecycle.prepare(Settings.of(texts), journal, Clock())
    assert forked == [True]
    with pytest.raises(CannotStart):
        lifecycle.prepare(Settings.of({**texts, RESTART_IF: "+", LENIENT: "+"}), journal, Clock())
    assert forked == [True]
    assert log[-1].startswith("#733 ")


def test_leaving_stops_the_reactor_before_the_process_ends() -> None:
    reactor = Reactor()
    leave(reactor, 3)
    assert reactor.stopped
    assert reactor.triggers[0][:2] == ("after", "shutdown")
    assert reactor.triggers[0][3] == 3
