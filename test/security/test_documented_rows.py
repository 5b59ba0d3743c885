"""The manual's page on security names tests that exist, and every test of this folder."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_each_test_named_on_the_page_exists() -> None:
    named = re.findall(r"`(test/[a-z_/]+\.py)`", PAGE)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_test_of_the_folder_is_named_on_the_page() -> None:
    here = {f"test/security/{path.name}" for path in Path(__file__).parent.glob("test_[a-z]*_*.py")} - {
        "test/security/test_documented_rows.py"
    }
    assert sorted(name for name in here if name not in PAGE) == []
