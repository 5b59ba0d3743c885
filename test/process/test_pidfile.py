"""The pid file and what is done to the instance that it names."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from smtpf.journal.journal import Entry, Journal
from smtpf.process.ending import CannotStart
from smtpf.process.instance import Predecessor, seconds_of
from smtpf.process.pidfile import PidFile


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def journal(log: list[str]) -> Journal:
    def keep(entry: Entry) -> None:
        log.append(entry.text)

    return Journal(keep)


class Instance:
    """Stands for a server that runs: holds the lock, and may let go of it when it is signalled."""

    def __init__(self, path: Path, pid: int, ends_after: int = 1) -> None:
        path.write_text(f"{pid}\n")
        self._file = path.open("r+")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.pid = pid
        self.signals: list[int] = []
        self.slept = 0.0
        self._ends_after = ends_after

    def kill(self, pid: int, signum: int) -> None:
        assert pid == self.pid
        self.signals.append(signum)
        if signum == signal.SIGKILL:
            self.end()

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept >= self._ends_after:
            self.end()

    def end(self) -> None:
        self._file.close()


def test_claimed_file_holds_our_number_and_names_its_holder(tmp_path: Path, journal: Journal) -> None:
    path = tmp_path / "smtpf.pid"
    ours = PidFile(str(path), journal)
    ours.claim()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o007 == 0
    assert PidFile(str(path), journal).holder() == os.getpid()
    ours.release()
    assert not path.exists()


def test_second_claim_ends_the_start_and_leaves_the_file_alone(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    path = tmp_path / "smtpf.pid"
    first = PidFile(str(path), journal)
    first.claim()
    with pytest.raises(CannotStart) as ended:
        PidFile(str(path), journal).claim()
    assert ended.value.code == 1
    assert log == [f'#905 lock "{path}" failed: {os.strerror(errno.EAGAIN)} ({errno.EAGAIN})']
    assert path.read_text() == f"{os.getpid()}\n"
    first.release()


def test_missing_folder_is_told_with_598(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    path = tmp_path / "none" / "smtpf.pid"
    with pytest.raises(CannotStart):
        PidFile(str(path), journal).claim()
    assert log == [f'#598 create "{path}" failed: {os.strerror(errno.ENOENT)} ({errno.ENOENT})']


def test_symbolic_link_is_not_followed(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "smtpf.pid").symlink_to(tmp_path / "victim")
    with pytest.raises(CannotStart):
        PidFile(str(tmp_path / "smtpf.pid"), journal).claim()
    assert (tmp_path / "victim").read_text() == "precious"


def test_file_that_vanished_is_told_with_731(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    path = tmp_path / "smtpf.pid"
    ours = PidFile(str(path), journal)
    ours.claim()
    path.unlink()
    ours.release()
    assert log == [f'#731 unlink("{path}"): {os.strerror(errno.ENOENT)} ({errno.ENOENT})']


def test_file_of_a_successor_is_not_removed(tmp_path: Path, journal: Journal) -> None:
    path = tmp_path / "smtpf.pid"
    ours = PidFile(str(path), journal)
    ours.claim()
    path.write_text("4711\n")
    ours.release()
    assert path.read_text() == "4711\n"


def test_empty_path_means_no_file(tmp_path: Path, journal: Journal) -> None:
    none = PidFile("", journal)
    none.claim()
    assert none.holder() is None
    none.release()


@pytest.mark.parametrize("content", ["4711\n", "", "not a number\n"])
def test_unlocked_file_is_stale_and_nobody_is_signalled(tmp_path: Path, journal: Journal, content: str) -> None:
    path = tmp_path / "smtpf.pid"
    path.write_text(content)

    def never(pid: int, signum: int) -> None:
        raise AssertionError("signalled")

    assert Predecessor(PidFile(str(path), journal), journal, never).stop(signal.SIGTERM) is None


def test_quit_signals_the_holder(tmp_path: Path, journal: Journal) -> None:
    path = tmp_path / "smtpf.pid"
    instance = Instance(path, 4711)
    assert Predecessor(PidFile(str(path), journal), journal, instance.kill).stop(signal.SIGQUIT) == 4711
    assert instance.signals == [signal.SIGQUIT]
    instance.end()


def test_restart_waits_until_the_lock_is_free(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    path = tmp_path / "smtpf.pid"
    instance = Instance(path, 4711, ends_after=7)
    Predecessor(PidFile(str(path), journal), journal, instance.kill, instance.sleep).replace(0, required=False)
    assert instance.signals == [signal.SIGTERM]
    assert 6.9 < instance.slept < 7.2
    assert log == ["#968 waiting for pid=4711", "#970 previous instance pid=4711"]


def test_restart_kills_after_ten_rounds(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    path = tmp_path / "smtpf.pid"
    instance = Instance(path, 4711, ends_after=10**9)
    Predecessor(PidFile(str(path), journal), journal, instance.kill, instance.sleep).replace(6, required=True)
    assert instance.signals == [signal.SIGTERM, signal.SIGKILL]
    assert 59 < instance.slept < 61
    assert log == ["#968 waiting for pid=4711"] * 10 + ["#969 force kill of pid=4711", "#970 previous instance pid=4711"]


def test_restart_without_an_instance_just_starts(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    Predecessor(PidFile(str(tmp_path / "none"), journal), journal).replace(0, required=False)
    assert log == []


def test_restart_if_without_an_instance_ends_with_733(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    with pytest.raises(CannotStart) as ended:
        Predecessor(PidFile(str(tmp_path / "none"), journal), journal).replace(0, required=True)
    assert ended.value.code == 1
    assert log == [f"#733 no previous instance running: {os.strerror(errno.ESRCH)} ({errno.ESRCH})"]


def test_restart_if_that_may_not_signal_ends_with_733(tmp_path: Path, journal: Journal, log: list[str]) -> None:
    path = tmp_path / "smtpf.pid"
    instance = Instance(path, 4711)

    def refuse(pid: int, signum: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(CannotStart):
        Predecessor(PidFile(str(path), journal), journal, refuse).replace(0, required=True)
    assert log == [f"#733 no previous instance running: {os.strerror(errno.EPERM)} ({errno.EPERM})"]
    instance.end()


@pytest.mark.parametrize(("text", "seconds"), [("+", 0), ("-", 0), ("30", 30), ("0x10", 16), ("soon", 0)])
def test_seconds_of_a_restart(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
