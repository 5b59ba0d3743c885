"""The command ``smtpf``: checking a configuration, and the catalogues as lists."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from smtpf.console import CATALOGUES, main
from test.support.node_process import ROOT

OPTIONS = """\
# planted errors: a misspelt name, a bad number, a lost word, an open quote
+smtp-slow-replay
smtp-drop-after=few
-lint extra +call-back
save-dir="/tmp
access-map=file!{folder}/access.cf
route-map=file!{folder}/route.cf
"""
ACCESS = """\
connect:192.0.2.1\tREJECT
conect:192.0.2.2\tREJECT
from:spam.example\tREJCT
 to:a@b.example\tOK
connect:192.0.2.3\t[192.0.2.0/33]OK
"""
ROUTE = """\
route:example.com\tFORWARD: 192.0.2.9
route:example.net\tFORWRD: 192.0.2.9
rout:example.org\tFORWARD: 192.0.2.9
route:example.org\tFORWARD: 192.0.2.9:99999
"""

PLANTED = [
    ("smtpf.cf:2", "smtp-slow-reply"),
    ("smtpf.cf:3", "smtp-drop-after"),
    ("smtpf.cf:4", "extra"),
    ("smtpf.cf:5", "not closed"),
    ("access.cf:2", '"connect:"'),
    ("access.cf:3", '"REJECT"'),
    ("access.cf:4", "blank"),
    ("access.cf:5", "network"),
    ("route.cf:2", '"FORWARD"'),
    ("route.cf:3", '"route:"'),
    ("route.cf:4", "99999"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "smtpf.cf").write_text(OPTIONS.format(folder=tmp_path))
    (tmp_path / "access.cf").write_text(ACCESS)
    (tmp_path / "route.cf").write_text(ROUTE)
    return tmp_path


def test_check_names_every_planted_error_with_file_line_and_nearest_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder / "smtpf.cf")]) == 1
    told = capsys.readouterr().out.splitlines()
    for place, hint in PLANTED:
        assert [line for line in told if f"/{place}: " in line and hint in line], (place, hint, told)
    assert {line.partition(": ")[0] for line in told[:-1]} == {f"{folder}/{place}" for place, _ in PLANTED}
    assert told[-1] == f"{folder}/smtpf.cf: {len(told) - 1} errors, 0 warnings"


def test_check_of_a_sound_configuration_is_silent_but_for_its_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "smtpf.cf"
    (tmp_path / "route.cf").write_text("route:example.com\tFORWARD: 192.0.2.9\n")
    file.write_text(f"access-map=\nroute-map=file!{tmp_path}/route.cf\ninterface-ip=127.0.0.1\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{file}: 0 errors, 1 warning"


def test_check_tells_values_that_the_node_would_not_start_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "smtpf.cf"
    file.write_text("access-map=\nroute-map=\ncache-sync-mode=sometimes\nsiq-score-reject=200\n")
    assert main(["check", str(file)]) == 1
    told = capsys.readouterr().out
    assert f"{file}: error: \"cache-sync-mode\" does not take 'sometimes'\n" in told
    assert f"{file}: error: \"siq-score-reject\" does not take '200'\n" in told


def test_reader_that_has_seen_enough_ends_a_list_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "smtpf.console", "list", "options"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as listing:
        assert listing.stdout is not None and listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 1


def test_check_tells_a_map_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "smtpf.cf"
    file.write_text(f"access-map=\nroute-map=file!{tmp_path}/none.cf\n")
    assert main(["check", str(file)]) == 1
    assert "none.cf" in capsys.readouterr().out


@pytest.mark.parametrize(("catalogue", "columns"), [("options", 8), ("messages", 5), ("replies", 3), ("counters", 5)])
def test_each_catalogue_is_a_table(catalogue: str, columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", catalogue]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert {len(row) for row in rows} == {columns}


def test_list_of_messages_tells_who_emits_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "messages"])
    rows = {tuple(line.split("\t")[:3]): line.split("\t")[3] for line in capsys.readouterr().out.splitlines()}
    assert rows["595", "INFO", "interface=%s ready"] == "smtpf.process.listening"
    assert rows["722", "INFO", "signal %d, slow quit cn=%u"] == "smtpf.process.signals"


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["list"], ["list", "everything"], ["check", "a", "b"]])
def test_command_line_without_sense_ends_with_64(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 64
    assert capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"smtpf {command}" in told for command in ("check", "list", "kvmap", "demo"))
    assert all(name in told for name in CATALOGUES)


def test_option_words_do_what_twistd_does_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["+version", "file="])
    assert ended.value.code == 2
    assert capsys.readouterr().out.startswith("smtpf ")


def test_kvmap_without_arguments_is_told_how(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["kvmap"]) == 64
