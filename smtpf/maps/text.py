"""Reading a map from a text file: one key and its value a line, or the counted form of saved statistics.

Source: spec chapter maps, section 3.
"""

from __future__ import annotations

import re

import attrs

_COUNTED = re.compile(rb"[0-9]+:")
_COUNT = re.compile(rb"([0-9]{1,9}):")
_ESCAPED = re.compile(rb"=([0-9A-Fa-f]{2})")
_BLANKS = " \t"


@attrs.frozen
class Line:
    """A record and where it stands."""

    number: int
    """Line of the file, from 1."""
    key: str
    value: str
    blank: bool = True
    """A blank followed the key."""


@attrs.frozen
class Text:
    """A map file as read: its records in order, and the numbers of lines that hold none though they should."""

    lines: tuple[Line, ...]
    keyless: tuple[int, ...] = ()


def parse_text(content: bytes) -> Text:
    """The records of a file. Raises ValueError when it is in the counted form and that is broken."""
    if _COUNTED.match(content):
        return parse_counted(content)
    lines: list[Line] = []
    keyless: list[int] = []
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1):
        body = line.rstrip(" \t\r")
        if not body or body[0] == "#":
            continue
        if body[0] in _BLANKS:
            keyless.append(number)
            continue
        lines.append(split_line(number, line))
    return Text(tuple(lines), tuple(keyless))


def split_line(number: int, line: str) -> Line:
    """Key up to the first blank or TAB, value behind the run of them, without blanks and line end at its end."""
    line = line.rstrip("\r\n")
    for position, mark in enumerate(line):
        if mark in _BLANKS:
            return Line(number, line[:position], line[position:].strip(_BLANKS))
    return Line(number, line, "", blank=False)


def parse_counted(content: bytes) -> Text:
    """Pairs ``LEN:DATA,LEN:DATA,`` a line; LEN counts octets after ``=XX`` has been decoded."""
    lines: list[Line] = []
    for number, row in enumerate(content.split(b"\n"), 1):
        if not row.strip():
            continue
        key, position = _counted(row, 0, number)
        value, position = _counted(row, position, number)
        if row[position:].strip():
            raise ValueError(f"line {number}: text behind the value")
        lines.append(Line(number, key, value))
    return Text(tuple(lines))


def _counted(row: bytes, start: int, number: int) -> tuple[str, int]:
    found = _COUNT.match(row, start)
    if found is None:
        raise ValueError(f"line {number}: no length")
    length = int(found[1])
    if length > len(row):
        raise ValueError(f"line {number}: length {length} is more than the line has")
    taken = bytearray()
    position = found.end()
    while len(taken) < length and position < len(row):
        escaped = _ESCAPED.match(row, position)
        if escaped is not None:
            taken.append(int(escaped[1], 16))
            position = escaped.end()
        else:
            taken.append(row[position])
            position += 1
    if len(taken) < length or row[position : position + 1] != b",":
        raise ValueError(f"line {number}: no comma where the length ends")
    return taken.decode("utf-8", "surrogateescape"), position + 1
