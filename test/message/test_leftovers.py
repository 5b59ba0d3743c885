"""Which files of save-dir are swept out."""

from __future__ import annotations

import os
from pathlib import Path

from smtpf.message.leftovers import OLD, sweep

NOW = 1_780_000_000.0


def spool(folder: Path, name: str, age: float) -> Path:
    path = folder / name
    path.write_text("x")
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_old_spool_files_go_and_everything_else_stays(tmp_path: Path) -> None:
    old = spool(tmp_path, "26395304711000171c.0123456789abcdef.tmp", OLD + 1)
    young = spool(tmp_path, "26395304711000171d.0123456789abcdef.tmp", OLD - 1)
    kept = spool(tmp_path, "26395304711000171c.msg", OLD * 9)
    foreign = spool(tmp_path, "somebody-elses.tmp", OLD * 9)
    assert sweep(str(tmp_path), NOW) == 1
    assert [path.exists() for path in (old, young, kept, foreign)] == [False, True, True, True]


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert sweep(str(tmp_path / "none"), NOW) == 0
