"""Words: how a line of the option file, or the argument of ``OPTN``, is cut, and what each word asks for.

Pure text; nothing here knows which options exist. Source: spec chapter options, sections 2 and 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

import attrs

BLANKS = " \t\r\f\v"
"""What stands between words, beside the end of the line."""

ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "s": " ", "t": "\t", "v": "\v"}
"""The letters that mean another character behind a backslash. Any other character behind it means itself."""

END_OF_OPTIONS = "--"

_NAME_AND_VALUE = re.compile(r"([A-Za-z_][^=]*?)(\+?)=(.*)", re.DOTALL)
_SIGN_AND_NAME = re.compile(r"([+-])([A-Za-z_].*)", re.DOTALL)


@attrs.frozen
class Word:
    """One word with its quotes and escapes resolved."""

    text: str
    broken: str = ""
    """Why it could not be read to its end; empty for a sound word."""


class Form(Enum):
    SIGN = "sign"
    """``+name`` or ``-name``: the value is the sign."""
    SET = "="
    APPEND = "+="


@attrs.frozen
class Assignment:
    """What one word asks for."""

    name: str
    value: str
    form: Form


def cut(line: str) -> Iterator[Word]:
    """The words of ``line``, up to a ``#`` that starts a word: there a comment begins, and is not even looked at for quotes."""
    at = 0
    while True:
        while at < len(line) and line[at] in BLANKS:
            at += 1
        if at == len(line) or line[at] == "#":
            return
        word, at = _one(line, at)
        yield word


def _one(line: str, at: int) -> tuple[Word, int]:
    """The word that starts at ``at``, and where it ended."""
    taken: list[str] = []
    quote = ""
    while at < len(line):
        character = line[at]
        at += 1
        if character == "\\":
            if at == len(line):
                return Word("".join(taken), "a backslash at the end of the line quotes nothing"), at
            taken.append(ESCAPES.get(line[at], line[at]))
            at += 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                taken.append(character)
        elif character in "'\"":
            quote = character
        elif character in BLANKS:
            break
        else:
            taken.append(character)
    return Word("".join(taken), f"the quote {quote} is not closed" if quote else ""), at


def assignment(text: str) -> Assignment | None:
    """What the word asks for; None for a word that is no option.

    ``+name=value`` is an assignment to an option that is called ``name=value``.
    """
    if signed := _SIGN_AND_NAME.fullmatch(text):
        return Assignment(signed[2], signed[1], Form.SIGN)
    if given := _NAME_AND_VALUE.fullmatch(text):
        return Assignment(given[1], given[3], Form.APPEND if given[2] else Form.SET)
    return None


_WRITTEN = {character: "\\" + letter for letter, character in ESCAPES.items() if character != " " and character != "\t"}
_WRITTEN |= {"\\": "\\\\", '"': '\\"'}
_WRITTEN_TABLE = str.maketrans(_WRITTEN)


def escaped(text: str) -> str:
    """``text`` with ``"``, backslash and control characters in the escapes that ``cut`` resolves; blanks and TABs as they are."""
    return text.translate(_WRITTEN_TABLE)


def needs_quotes(text: str) -> bool:
    """True when ``escaped(text)`` is read back only from between double quotes."""
    return any(character in " \t'" for character in text)
