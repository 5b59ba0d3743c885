"""What is installed is all that is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_room_of_the_house_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = {name for name in project["tool"]["setuptools"]["packages"] if name.startswith("smtpf")}
    assert listed == {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "smtpf").rglob("__init__.py")}
