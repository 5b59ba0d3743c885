"""The reference pages of the manual say what the program declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpf.manual import pages

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


@pytest.mark.parametrize("name", ["options.md", "messages.md", "replies.md", "counters.md"])
def test_page_is_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text(encoding="utf-8") == pages()[name], "python -m smtpf.manual docs/reference"


def test_every_page_is_there() -> None:
    assert sorted(path.name for path in REFERENCE.glob("*.md")) == sorted(pages())
