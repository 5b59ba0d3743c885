"""The help dump: all options with their meaning and present setting, as an option file that can be read back.

``+help file=old.cf > new.cf`` brings an old file up to date this way. Reading the dump gives exactly the settings it was
made from. Source: spec chapter options, section 6.
"""

from __future__ import annotations

import textwrap

from smtpf import __version__
from smtpf.settings.option import AnyOption
from smtpf.settings.store import Settings, canonical
from smtpf.settings.words import escaped, needs_quotes

COLUMNS = 78

PROGRAM = f"""\
smtpf {__version__}

An SMTP filtering proxy. Published under the BSD 2-clause licence; the file
LICENSE that comes with it has the terms."""

SYNTAX = """\
How options are written

+name            Switch it on.
-name            Switch it off.
name=value       Give it a value; an empty value is allowed.
name+=value      Add an element to the end of a list.

Several may share a line. Put "..." or '...' around blanks; a backslash
takes the special meaning from the character behind it. A # at the start of
a word makes a comment of the rest of the line. The command line is applied
after this file and wins."""

NAMES = """\
The options

In alphabetical order. A setting that is not the default has the default as
a comment above it."""


def dump(settings: Settings) -> str:
    """The whole option file, LF line ends."""
    blocks = [_comment(block) for block in (PROGRAM, SYNTAX, NAMES)]
    blocks += [f"{_description(option)}{setting(settings, option)}" for option in settings.options if not option.ignored]
    return "\n".join(blocks)


def setting(settings: Settings, option: AnyOption) -> str:
    """The lines that set ``option``; before them, as comment, its default when that is another."""
    if option.kind == "action":
        return f"#-{option.name} or +{option.name}\n"
    lines = _assignments(option, settings.text(option))
    if settings.changed(option):
        lines = ["#" + line for line in _assignments(option, canonical(option, option.default))] + lines
    return "".join(f"{line}\n" for line in lines)


def _assignments(option: AnyOption, text: str) -> list[str]:
    if option.kind == "bool" and text in ("+", "-"):
        return [text + option.name]
    first, *others = _elements(text)
    quote = '"' if any(needs_quotes(element) for element in (first, *others)) else ""
    return [
        f"{option.name}={quote}{escaped(first)}{quote}",
        *(f"{option.name}+={quote}{escaped(element)}{quote}" for element in others),
    ]


def _elements(text: str) -> list[str]:
    """The elements of a list. Empty ones at its front stay with the first that is not: nothing can be added behind an empty text."""
    front = len(text) - len(text.lstrip(";"))
    first, *others = text[front:].split(";")
    return [";" * front + first, *others]


def _description(option: AnyOption) -> str:
    shows_itself = option.choices in ("", "+|-")
    text = option.meaning if shows_itself else f"{option.meaning} ({option.choices})"
    return _comment("\n".join(textwrap.wrap(text, COLUMNS - 2, break_on_hyphens=False)))


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" if line else "#\n" for line in text.split("\n"))
