"""Options of a running node: what ``OPTN`` shows, and what it or a new reading of the option file may change.

A change is checked as a whole and refused as a whole; nothing here changes anything, the caller puts the new settings in
force. Changes are not saved: a restart brings back file and command line.
Source: spec chapter options, section 7; chapter operations, 4.4 and 6.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import attrs

from smtpf.journal.message import Message, warn
from smtpf.reply import Reply
from smtpf.settings.language import Draft, Names, Place, Problem
from smtpf.settings.option import AnyOption
from smtpf.settings.store import Settings
from smtpf.settings.words import END_OF_OPTIONS, Assignment, Form, Word, assignment, cut, escaped

NEEDS_RESTART = Reply(
    323,
    "501 5.5.4 %s requires restart",
    meaning="The option can only be set in the option file or on the command line. None of the options given with it was changed.",
)
UNKNOWN_OPTION = Reply(
    1121,
    "504 5.5.4 option %s unknown",
    meaning="OPTN named something that is no option. None of the options given with it was changed.",
)
INVALID_VALUE = Reply(
    1122,
    "501 5.5.4 option %s invalid value",
    meaning="The option does not take the value given by OPTN and keeps the one it has, as do those given with it.",
)

NEEDS_RESTART_AT_RELOAD = warn(
    1132,
    "option %s needs restart",
    "The option file was read again and has another value for an option that can only be set at start. "
    "The old value stays in force until the next restart.",
    fields=("option",),
    since="new",
)

HIDDEN = "***"
"""Shown in place of a secret."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SIGN = re.compile(r"^[+-]")


@attrs.frozen
class Changed:
    """The settings as they shall be, the options whose text is another now, and warnings (old names, dropped options)."""

    settings: Settings
    options: tuple[AnyOption, ...]
    warnings: tuple[Problem, ...]


@attrs.frozen
class Refused:
    """Nothing changes. ``reply`` has one conversion, for ``name``."""

    reply: Reply
    name: str


def listing(settings: Settings) -> Iterator[str]:
    """What OPTN shows without argument, one option a line, without reply code. Secrets that are set are not shown."""
    for option in settings.options:
        if option.kind != "action" and not option.ignored:
            yield shown(settings, option)


def shown(settings: Settings, option: AnyOption) -> str:
    """``+name``, ``-name`` or ``name="text"``; a flag above level 1 is shown with its level."""
    text = settings.text(option)
    if option.kind == "bool" and text in ("+", "-"):
        return text + option.name
    if option.secret and text:
        return f'{option.name}="{HIDDEN}"'
    return f'{option.name}="{_CONTROL.sub(_backslashed, escaped(text))}"'


def _backslashed(control: re.Match[str]) -> str:
    return "\\t" if control[0] == "\t" else f"\\{ord(control[0]):03o}"


def change(settings: Settings, argument: str) -> Changed | Refused:
    """What ``OPTN argument`` leads to. Several words are taken together or not at all."""
    names = Names(settings.options)
    words = list(cut(argument))
    if words and words[-1].text == END_OF_OPTIONS:
        words.pop()
    for judge in (_restart_only, _unknown, _unreadable):
        for word in words:
            if refused := judge(word, names):
                return refused

    draft = Draft(settings, names)
    for word in words:
        given = assignment(word.text)
        if given is not None:
            known_problems = len(draft.problems)
            draft.apply(given, Place("OPTN"))
            if any(problem.is_error for problem in draft.problems[known_problems:]):
                return Refused(INVALID_VALUE, _registered(given.name, names))
    new = draft.settings()
    changed = tuple(option for option in new.options if new.text(option) != settings.text(option))
    for option in changed:
        if not option.fits(new[option]):
            return Refused(INVALID_VALUE, option.name)
    return Changed(new, changed, tuple(draft.problems))


def reloaded(current: Settings, fresh: Settings, write: Callable[[Message, str], object]) -> Settings:
    """``fresh`` settings, read from the option file again, as a running node takes them: restart-only options keep their value.

    Each of those that would have changed is logged by ``write`` of the journal (#1132). Changes made by OPTN end here.
    """
    kept: dict[AnyOption, str] = {}
    for option in fresh.options:
        if not option.runtime and fresh.text(option) != current.text(option):
            kept[option] = current.text(option)
            if option.kind != "action":
                write(NEEDS_RESTART_AT_RELOAD, option.name)
    return fresh.evolve(kept)


def _named(word: Word) -> str:
    """The name part of a word, also of one that is no assignment."""
    given = assignment(word.text)
    return given.name.partition("=")[0].removesuffix("+") if given else _SIGN.sub("", word.text)


def _registered(name: str, names: Names) -> str:
    known = names.find(name)
    return known.option.name if known else name


def _restart_only(word: Word, names: Names) -> Refused | None:
    known = names.find(_named(word))
    if known is None or known.option.runtime or known.option.ignored:
        return None
    return Refused(NEEDS_RESTART, known.option.name)


def _unknown(word: Word, names: Names) -> Refused | None:
    return None if names.find(_named(word)) else Refused(UNKNOWN_OPTION, _named(word))


def _unreadable(word: Word, names: Names) -> Refused | None:
    """A broken quote, no sign and no value, a sign and a value, or a sign for an option that takes a text."""
    given = assignment(word.text)
    if given is not None and not word.broken and not _sign_misplaced(given, names):
        return None
    return Refused(INVALID_VALUE, _registered(_named(word), names))


def _sign_misplaced(given: Assignment, names: Names) -> bool:
    if given.form is not Form.SIGN:
        return False
    known = names.find(given.name)
    return known is None or (known.option.kind in ("string", "list") and not known.option.ignored)
