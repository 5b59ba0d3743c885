"""The worked example of docs/extending.md, taken from the page and run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import twisted.plugins
from smtpf.filters.extension import extension_modules, extensions
from smtpf.settings.catalogue import instances
from smtpf.settings.option import Option
from test.support.talk import Talk, codes

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's two files, installed beside smtpf."""
    for block in re.findall(r"```python\n(# (\S+)\n.*?)```", PAGE.read_text(), re.DOTALL):
        path = tmp_path / block[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(tmp_path / "twisted" / "plugins")])
    yield
    for name in ("acme_filters", "twisted.plugins.acme_smtpf"):
        sys.modules.pop(name, None)


def test_the_example_of_the_manual_is_found_and_refuses(installed: None) -> None:
    (limit,) = (option for option in instances(Option, extension_modules()) if option.name == "acme-local-part")
    talk = Talk({limit: "5"}, route="route:example.com FORWARD: 192.0.2.1", extensions=extensions())
    client = talk.greeted()
    assert codes(client.say("MAIL FROM:<somebody@example.org>")) == ["550 #9001"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]


def test_nothing_is_found_where_nothing_is_installed() -> None:
    assert "acme_filters" not in [module.__name__ for module in extension_modules()]
