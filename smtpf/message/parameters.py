"""Structured header values of MIME: a type or disposition and its parameters, however they are spelt.

Mail programs read malformed parameters in different ways, so besides the value that the standards give, every name that
some program might show for an attachment is kept. Bounded, and linear in the length of the value. Source: RFC 2045 5.1,
RFC 2183, RFC 2231, spec chapter filters-content, 10 (Modern b, d) and 11.
"""

from __future__ import annotations

import re
from itertools import islice

import attrs

from smtpf.message.encoded_word import decode_words, raw_text, to_text

MAX_VALUE = 65536
"""Octets of a header value that are looked at."""
MAX_PARAMETERS = 128
"""Parameters of one value that are looked at."""
MAX_COMMENT_DEPTH = 32
"""Nesting of comments that is followed."""

_COMMENT_STEP = re.compile(rb'"(?:\\.|[^"\\])*+"?|\\.|[()]|[^"()\\]++', re.DOTALL)
_SEMICOLONS = re.compile(rb";(?:\s*+;)++")
_PARAMETER = re.compile(rb';\s*+([^\s=;"]++)\s*+(?:=\s*+("(?:\\.|[^"\\])*+"?[^;]*+|[^;]*+))?', re.DOTALL)
_EXTENDED = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?\Z")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_QUOTED = re.compile(rb'"((?:\\.|[^"\\])*+)"?', re.DOTALL)
_UNESCAPE = re.compile(rb"\\(.)", re.DOTALL)


@attrs.frozen
class StructuredValue:
    """A value such as ``text/plain; charset=utf-8``."""

    word: str
    """What stands before the first semicolon, in lower case, without comments and blanks."""
    parameters: dict[str, str] = attrs.field(factory=dict)
    """Decoded values by name in lower case; the first of several."""
    readings: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Every way in which some program reads a parameter."""
    ambiguous: bool = False
    """A parameter is given twice or spelt so that programs differ, or a limit was reached."""


def parse_value(octets: bytes) -> StructuredValue:
    """Take a header value apart."""
    ambiguous = len(octets) > MAX_VALUE
    text = octets[:MAX_VALUE]
    if b"(" in text:
        text = _without_comments(text)
    text = _SEMICOLONS.sub(b";", text)
    word = raw_text(text.partition(b";")[0])
    readings: dict[str, list[str]] = {}
    pieces: dict[str, dict[int, tuple[bytes, bool]]] = {}
    extended: dict[str, str] = {}
    count = 0
    for found in islice(_PARAMETER.finditer(text), MAX_PARAMETERS + 1):
        count += 1
        if count > MAX_PARAMETERS:
            ambiguous = True
            break
        given = found[2] or b""
        value, sure = _plain(given)
        split = _EXTENDED.match(raw_text(found[1]).lower())
        if split is None:
            continue
        name = split[1]
        if split[2] is not None:
            known = pieces.setdefault(name, {})
            ambiguous |= int(split[2]) in known
            known.setdefault(int(split[2]), (value, split[3] is not None))
        elif split[3]:
            ambiguous |= name in extended
            extended.setdefault(name, _charset_value(value))
        else:
            ambiguous |= name in readings or not sure
            ways = readings.setdefault(name, [])
            ways.append(decode_words(value))
            if not sure:
                ways.append(raw_text(value.split(None, 1)[0]) if value.split() else "")
                ways.append(raw_text(given.strip().strip(b'"')))
    for name, known in pieces.items():
        ambiguous |= name in extended or sorted(known) != list(range(len(known)))
        extended.setdefault(name, _joined(known))
    for name, better in extended.items():
        ambiguous |= name in readings and better not in readings[name]
        readings[name] = [better, *readings.get(name, ())]
    return StructuredValue(
        "".join(word.split()).lower(),
        {name: ways[0] for name, ways in readings.items()},
        {name: tuple(dict.fromkeys(ways)) for name, ways in readings.items()},
        ambiguous,
    )


def _plain(given: bytes) -> tuple[bytes, bool]:
    """The value of a parameter as it is spelt, and whether all programs would agree on it."""
    stripped = given.strip()
    quoted = _QUOTED.match(stripped)
    if quoted is not None:
        sure = quoted.end() == len(stripped) and stripped.endswith(b'"') and len(stripped) > 1
        return _UNESCAPE.sub(rb"\1", quoted[1]), sure
    return stripped, not (b" " in stripped or b"\t" in stripped or b'"' in stripped)


def _charset_value(octets: bytes, charset: str = "") -> str:
    """``charset'language'percent-encoded`` (RFC 2231 4)."""
    if not charset and octets.count(b"'") >= 2:
        named, _, octets = octets.split(b"'", 2)
        charset = raw_text(named)
    return to_text(_PERCENT.sub(lambda found: bytes((int(found[1], 16),)), octets), charset or "utf-8")


def _joined(pieces: dict[int, tuple[bytes, bool]]) -> str:
    """Continuations in their order (RFC 2231 3)."""
    charset = ""
    octets = b""
    for _, (value, encoded) in sorted(pieces.items()):
        if encoded:
            if not charset and value.count(b"'") >= 2:
                named, _, value = value.split(b"'", 2)
                charset = raw_text(named) or "utf-8"
            value = _PERCENT.sub(lambda found: bytes((int(found[1], 16),)), value)
        octets += value
    return to_text(octets, charset) if charset else decode_words(octets)


def _without_comments(text: bytes) -> bytes:
    """``text`` with every comment turned into a blank; unchanged from where comments are nested too deep."""
    kept: list[bytes] = []
    depth = 0
    for step in _COMMENT_STEP.finditer(text):
        found = step[0]
        if found == b"(":
            depth += 1
            if depth > MAX_COMMENT_DEPTH:
                kept.append(text[step.start() :])
                break
        elif found == b")" and depth:
            depth -= 1
            kept.append(b" ")
        elif not depth:
            kept.append(found)
    return b"".join(kept)
