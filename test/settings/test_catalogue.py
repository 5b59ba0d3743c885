"""Finding declarations by type, where they are made, and who uses them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from smtpf.settings import catalogue
from smtpf.settings.catalogue import declared, emitters, instances
from smtpf.settings.option import Flag, Option

FIRST = """
from smtpf.settings.option import Flag
from plugged import _second
from plugged._second import MADE_IN_SECOND, ONLY_IMPORTED
MADE_IN_FIRST: Flag = Flag("made-in-first", False, ".")
UNUSED = Flag("unused", False, ".")
ALSO = MADE_IN_FIRST
def work(settings):
    from plugged._second import LAZY as LATE
    return settings[MADE_IN_SECOND], settings[_second.BY_MODULE], LATE
"""
SECOND = """
from smtpf.settings.option import Flag
MADE_IN_SECOND = Flag("made-in-second", False, ".")
ONLY_IMPORTED = Flag("only-imported", False, ".")
BY_MODULE = Flag("by-module", False, ".")
LAZY = Flag("lazy", False, ".")
def work(settings):
    return settings[BY_MODULE]
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of two modules, the first of which imports constants of the second; nothing of smtpf itself is walked."""
    package = tmp_path / "plugged"
    package.mkdir()
    for name, source in (("__init__", ""), ("first", FIRST), ("_second", SECOND), ("__main__", "raise SystemExit")):
        (package / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalogue, "smtpf", ModuleType("smtpf"))
    yield importlib.import_module("plugged")
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
        del sys.modules[name]


def test_each_constant_is_found_once_in_the_module_that_makes_it(plugged: ModuleType) -> None:
    assert sorted((module, constant) for module, constant, option in declared(Option, [plugged])) == [
        ("plugged._second", "BY_MODULE"),
        ("plugged._second", "LAZY"),
        ("plugged._second", "MADE_IN_SECOND"),
        ("plugged._second", "ONLY_IMPORTED"),
        ("plugged.first", "MADE_IN_FIRST"),
        ("plugged.first", "UNUSED"),
    ]
    assert sorted(option.name for option in instances(Flag, [plugged])) == sorted(option.name for _, _, option in declared(Flag, [plugged]))


def test_users_are_the_modules_that_mention_a_constant_beyond_import_and_declaration(plugged: ModuleType) -> None:
    options = instances(Option, [plugged])
    users = emitters(options, [plugged])
    assert {option.name: users[id(option)] for option in options} == {
        "made-in-first": ("plugged.first",),
        "unused": (),
        "made-in-second": ("plugged.first",),
        "only-imported": (),
        "by-module": ("plugged._second", "plugged.first"),
        "lazy": ("plugged.first",),
    }
