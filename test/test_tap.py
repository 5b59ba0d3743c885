"""The command line of ``twistd smtpf``: words handed through, errors told together, actions and their exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet.task import Clock

import smtpf
from smtpf import tap
from smtpf.journal.journal import Journal
from smtpf.process.pidfile import PidFile
from smtpf.settings.language import Problem
from smtpf.settings.process_options import DAEMON
from smtpf.settings.store import Settings
from smtpf.tap import Options, makeService, start

ROOT = Path(smtpf.__file__).parent.parent


class Made:
    """Stands for the node: remembers what it was made of."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.problems: tuple[Problem, ...] = ()

    def __call__(self, settings: Settings, problems: tuple[Problem, ...], reactor: Any, reread: object) -> MultiService:
        self.settings, self.problems = settings, problems
        return MultiService()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    return Made()


def begin(words: list[str], made: Made, **named: Any) -> MultiService:
    return start(words, Clock(), make=made, **named)


@pytest.mark.parametrize("words", [["+smtp-slow-reply", "-call-back", "dns-bl+=x.example"], ["file=/a b.cf"], ["--"], []])
def test_words_reach_the_option_language_untouched(words: list[str]) -> None:
    options = Options()
    options.parseOptions(words)
    assert list(options.words) == words


def test_settings_come_from_the_words(made: Made) -> None:
    begin(["file=", "-daemon", "verbose=info,smtp=2"], made)
    assert made.settings is not None
    assert made.settings[DAEMON] is False


@pytest.mark.parametrize(("nodaemon", "forked"), [(False, True), (True, False)])
def test_only_without_n_the_node_goes_into_the_background(
    made: Made, monkeypatch: pytest.MonkeyPatch, nodaemon: bool, forked: bool
) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(tap, "_node_maker", lambda: made)
    monkeypatch.setattr(tap, "prepare", lambda settings, journal, reactor: prepared.append(settings[DAEMON]))
    options = Options()
    options.parent = {"nodaemon": nodaemon, "debug": False, "pidfile": "twistd.pid"}
    options.parseOptions(["file=", "log-target=stderr"])
    makeService(options)
    assert prepared == [forked]
    assert options.parent == {"nodaemon": True, "debug": False, "pidfile": ""}


def test_all_errors_are_told_with_place_and_nearest_name_and_nothing_starts(
    tmp_path: Path, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "smtpf.cf"
    file.write_text("smtp-drop-after=many\n+smtp-slow-replay\nfoo +relay-reply\n")
    with pytest.raises(SystemExit) as ended:
        begin([f"file={file}"], made)
    assert ended.value.code == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"{file}:1", f"{file}:2", f"{file}:3"]
    assert "smtp-slow-reply" in told[1]
    assert made.settings is None


def test_lenient_start_logs_the_names_it_ignores(made: Made, capfd: pytest.CaptureFixture[str]) -> None:
    begin(["file=", "-daemon", "+lenient", "unheard-of=1"], made)
    assert made.settings is not None
    assert '#1130 option "unheard-of" unknown, ignored' in capfd.readouterr().err


def test_unexpected_argument_is_a_usage_error(made: Made) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", "smtp-drop-after=3", "extra"], made)
    assert ended.value.code == 64


def test_missing_file_that_was_named_is_an_error(made: Made, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        begin([f"file={tmp_path}/none.cf"], made)
    assert ended.value.code == 1


@pytest.mark.parametrize(
    ("words", "status", "first"),
    [
        (["+version", "+help"], 2, f"smtpf {smtpf.__version__}"),
        (["-info"], 2, 'SMTPF_NAME="smtpf"'),
        (["+access-tag-words"], 2, "/connect:/ /OK|"),
        (["+access-word-tags"], 2, "/"),
        (["+help"], 2, f"# smtpf {smtpf.__version__}"),
    ],
)
def test_actions_print_and_end(made: Made, capsys: pytest.CaptureFixture[str], words: list[str], status: int, first: str) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", *words], made)
    assert ended.value.code == status
    assert capsys.readouterr().out.startswith(first)
    assert made.settings is None


def test_help_dump_holds_the_settings_given_with_it(tmp_path: Path, made: Made) -> None:
    new = tmp_path / "new.cf"
    with pytest.raises(SystemExit):
        begin(["file=", f"help={new}", "smtp-drop-after=7"], made)
    assert "\nsmtp-drop-after=7\n" in new.read_text()
    begin([f"file={new}", "-daemon"], made)
    assert made.settings is not None
    assert made.settings.text(next(each for each in made.settings.options if each.name == "smtp-drop-after")) == "7"


def test_help_to_a_place_that_cannot_be_written_fails(tmp_path: Path, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", f"help={tmp_path}/none/new.cf"], made)
    assert ended.value.code == 1
    assert "none/new.cf" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["+quit", "+slow-quit"])
def test_quit_without_an_instance_fails(tmp_path: Path, made: Made, action: str) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", action, f"run-pid-file={tmp_path}/none.pid"], made)
    assert ended.value.code == 1


@pytest.mark.parametrize(("action", "signum"), [("+quit", signal.SIGTERM), ("-slow-quit", signal.SIGQUIT)])
def test_quit_signals_the_instance(tmp_path: Path, made: Made, action: str, signum: int) -> None:
    path = tmp_path / "smtpf.pid"
    held = PidFile(str(path), Journal(lambda entry: None))
    held.claim()
    heard: list[int] = []
    before = signal.signal(signum, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(SystemExit) as ended:
            begin(["file=", action, f"run-pid-file={path}"], made)
    finally:
        signal.signal(signum, before)
        held.release()
    assert (ended.value.code, heard) == (0, [signum])


def test_restart_if_without_an_instance_does_not_start(tmp_path: Path, made: Made, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", "-daemon", "+restart-if", f"run-pid-file={tmp_path}/none.pid"], made)
    assert ended.value.code == 1
    assert "#733 no previous instance running: " in capfd.readouterr().err
    assert made.settings is None


def test_windows_service_is_refused(made: Made) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", "service=add"], made)
    assert ended.value.code == 2


def test_log_file_that_cannot_be_opened_ends_the_start(tmp_path: Path, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["file=", "-daemon", f"log-target=file!{tmp_path}/none/log"], made)
    assert ended.value.code == 1
    assert "none/log" in capsys.readouterr().err


def test_twistd_knows_the_plugin_and_passes_the_words(tmp_path: Path) -> None:
    twistd = Path(sys.executable).parent / "twistd"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(twistd), "-n", "--pidfile=", "smtpf", "file=", "+version", "-call-back"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (2, f"smtpf {smtpf.__version__}")
    assert list(tmp_path.iterdir()) == []
