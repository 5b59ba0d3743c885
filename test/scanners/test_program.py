"""Real child processes: input, output, exit status, and an end in every case."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpf.scanners.program import CANNOT_EXECUTE, MAX_LINES, Ending, Program, start


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """``script("echo x")``: path of a shell script that does so."""

    def write(text: str) -> str:
        path = tmp_path / "judge"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


Script = Callable[[str], str]


def begun(path: str, *arguments: str, timeout: float = 10) -> Program:
    from twisted.internet import reactor

    program = start(reactor, [path, *arguments], timeout)
    assert isinstance(program, Program)
    return program


async def ended(program: Program, octets: bytes = b"") -> Ending:
    program.write(octets)
    return await program.finish()


def test_input_reaches_it_and_its_output_comes_back(script: Script, reactor_run: Any) -> None:
    program = begun(script('cat; echo "$1" >&2; printf last; exit 4'), "second word")
    ending = reactor_run(ended(program, b"one\r\ntwo\n"))
    assert ending == Ending(4, ("one", "two", "second word", "last"))


def test_a_large_input_passes_whole(script: Script, reactor_run: Any) -> None:
    ending = reactor_run(ended(begun(script("wc -c")), b"x" * 3_000_000))
    assert [line.strip() for line in ending.lines] == ["3000000"]


def test_it_has_path_only_in_its_environment_and_no_descriptor_of_ours(script: Script, reactor_run: Any, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        ending = reactor_run(ended(begun(script("env; echo ---; ls /proc/self/fd | wc -l"))))
    at = ending.lines.index("---")
    assert {line.partition("=")[0] for line in ending.lines[:at]} <= {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}
    assert "PATH=/bin:/usr/bin" in ending.lines
    assert int(ending.lines[at + 1]) == 4  # standard input, output, error, and the folder that ls reads


def test_words_are_no_shell(script: Script, reactor_run: Any) -> None:
    ending = reactor_run(ended(begun(script('echo "$1"'), "$(id); `id` | x > /tmp/y")))
    assert ending.lines == ("$(id); `id` | x > /tmp/y",)


@pytest.mark.parametrize("path", ["/no/such/program", "/etc/passwd"])
def test_what_cannot_be_executed_counts_as_status_71(path: str) -> None:
    from twisted.internet import reactor

    assert start(reactor, [path], 1) == Ending(CANNOT_EXECUTE)


def test_without_descriptors_the_error_comes_back(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    path = script("exit 0")
    monkeypatch.setattr(os, "pipe", none_left)
    outcome = start(reactor, [path], 1)
    assert isinstance(outcome, OSError) and outcome.errno == errno.EMFILE


def test_one_that_hangs_is_killed_with_all_it_has_started(script: Script, reactor_run: Any, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = begun(script(f"sleep 600 & echo $! > {note}; sleep 600"), timeout=0.5)
    ending = reactor_run(ended(program))
    assert ending.signal == signal.SIGKILL
    assert gone(int(note.read_text()))


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_one_that_dies_tells_its_signal(script: Script, reactor_run: Any) -> None:
    assert reactor_run(ended(begun(script("kill -TERM $$")))).signal == signal.SIGTERM


def test_one_that_closes_its_output_and_goes_on_is_killed(script: Script, reactor_run: Any) -> None:
    ending = reactor_run(ended(begun(script("exec >&- 2>&-; sleep 600"))))
    assert ending.signal == signal.SIGKILL


def test_one_that_closes_its_input_and_goes_on_is_killed_and_named(script: Script, reactor_run: Any, tmp_path: Path) -> None:
    program = begun(script("exec 0<&-; echo closed; sleep 600"))

    async def feed() -> Ending:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        for _ in range(100):
            program.write(b"x" * 10)
            await deferLater(reactor, 0.01)
            if program._input_broken:
                break
        return await program.finish()

    ending = reactor_run(feed())
    assert ending.unfed == errno.EPIPE and ending.signal == signal.SIGKILL
    assert ending.lines == ("closed",)


def test_one_that_decides_early_is_heard(script: Script, reactor_run: Any) -> None:
    ending = reactor_run(ended(begun(script("read line; echo no $line; exit 5")), b"first\n" + b"x" * 1_000_000))
    assert ending == Ending(5, ("no first",))


def test_one_that_does_not_read_is_not_waited_for_for_ever(script: Script, reactor_run: Any) -> None:
    program = begun(script("sleep 600"), timeout=0.3)

    async def feed() -> tuple[bool, Ending]:
        program.write(b"x" * 1_000_000)
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        while program.flowing:
            await deferLater(reactor, 0.01)
        return await program.drained(), await program.finish()

    drained, ending = reactor_run(feed())
    assert not drained and ending.signal == signal.SIGKILL


def test_long_lines_are_cut_and_many_are_dropped(script: Script, reactor_run: Any) -> None:
    ending = reactor_run(ended(begun(script("printf '%01300d\\n' 7; seq 1 100000; exit 5"))))
    assert [len(line) for line in ending.lines[:3]] == [512, 512, 276]
    assert ending.lines[3] == "1" and len(ending.lines) == MAX_LINES and ending.status == 5


def test_kill_ends_it_and_leaves_no_zombie(script: Script, reactor_run: Any) -> None:
    program = begun(script("sleep 600"))
    program.kill()

    async def reaped() -> None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        for _ in range(500):
            if not Path(f"/proc/{program.pid}").exists():
                return
            await deferLater(reactor, 0.01)

    reactor_run(reaped())
    assert not Path(f"/proc/{program.pid}").exists()


def test_starting_one_does_not_hold_the_reactor(script: Script, reactor_run: Any) -> None:
    path = script("exit 0")
    began = time.perf_counter()
    program = begun(path)
    assert time.perf_counter() - began < 0.25
    reactor_run(ended(program))


def test_no_descriptor_stays_open(script: Script, reactor_run: Any) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    path = script("cat; exit 0")
    for _ in range(3):
        reactor_run(ended(begun(path), b"x\n"))
    killed = begun(path)
    killed.kill()
    assert sorted(os.listdir("/proc/self/fd")) == before
