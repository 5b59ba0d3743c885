"""The right-hand side of an access map: patterns with actions, and a default.

``[192.0.2.0/24]OK !*.example.net!REJECT /^dsl[0-9]+/SKIP CONTENT`` is read from left to right; the first pattern that
matches gives its action, else the default does. A value is parsed once and kept; an item with a fault is skipped and
reported when a look-up comes to it. Globs and regular expressions run on RE2, whose time grows only linearly with the
text, so no pattern can hold the program. Source: spec chapter maps, sections 11 and 12.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import attrs
import re2

from smtpf.journal.message import Message, debug, err
from smtpf.maps.keys import parse_address

MAX_SUBJECT = 1024
"""Longest text, in characters, that a regular expression is asked about."""

MAX_GLOB_SUBJECT = 4096
"""Longest text, in characters, that a glob can match. No name or path of a mail is as long; ``*`` alone matches any."""

MAX_PATTERN = 2048
"""Longest regular expression or glob, in characters."""

MAX_COMPILED = 1 << 18
"""Octets of memory that one compiled expression may take. Time grows with it: this much holds the program some 10 ms at the worst."""

REMEMBERED = 4096
"""Parsed values and compiled patterns kept, each."""

LONGEST_KEPT = 4096
"""Characters of a value that is kept parsed; a longer one is parsed at each look-up."""

GLOB_DELIMITER = err(
    100,
    'pattern delimiter error: "%.50s..."',
    "A glob in an access-map value is empty or has no closing exclamation mark. The item is skipped; mend the record.",
    fields=("value",),
)
NETWORK_DELIMITER = err(
    103,
    'network delimiter error: "%.50s..."',
    "A network in an access-map value has no closing bracket. The item is skipped; mend the record.",
    fields=("value",),
)
NETWORK_ADDRESS = err(
    105,
    'network specifier error: "%.50s..."',
    "What stands in brackets in an access-map value is not an IP address. The item is skipped; mend the record.",
    fields=("value",),
)
NETWORK_BITS = err(
    106,
    'network specifier error, "%.50s..."',
    "Behind the address of a network in an access-map value stands something other than a slash and a possible number of bits. "
    "The item is skipped; mend the record.",
    fields=("value",),
)
REGEX_DELIMITER = err(
    108,
    'regular expression delimiter error: "%.50s..."',
    "A regular expression in an access-map value is empty or has no closing slash. The item is skipped; mend the record.",
    fields=("value",),
)
REGEX_SYNTAX = err(
    110,
    'regular expression error: %s "%.50s..."',
    "A regular expression in an access-map value is not a POSIX extended one that can be matched in bounded time. The item is skipped.",
    fields=("reason", "value"),
)
REGEX_MATCH = err(
    112,
    'regular expression error: %s "%.50s..."',
    "A regular expression could not be applied, because the text to match is too long. The item counts as not matching.",
    fields=("reason", "value"),
)
TRACE_GLOB = debug(101, "pattern=!%s! action=%.6s", "access", "A glob is about to be tried.")
TRACE_GLOB_MATCH = debug(102, '"%s" matched "%.50s..."', "access", "A glob matched.")
TRACE_NETWORK = debug(104, "network=[%s] action=%.6s", "access", "A network is about to be tried.")
TRACE_NETWORK_MATCH = debug(107, '"%s" matched "%.50s..."', "access", "A network holds the address.")
TRACE_REGEX = debug(109, "regex=/%s/ action=%.6s", "access", "A regular expression is about to be tried.")
TRACE_REGEX_MATCH = debug(111, '"%s" matched "%.50s..."', "access", "A regular expression matched.")
TRACE_DEFAULT = debug(113, '"%s" default action "%.10s..."', "access", "No pattern matched; the default of the value is taken.")
TRACE_RESULT = debug(114, '"%s" result "%s"', "access", "What a pattern list answered for a text; empty when nothing matched.")

Report = Callable[..., None]
"""``report(message, *args)``: told of faults, and of steps when the look-up is traced."""

Matcher = Callable[[str], bool]

_ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_IPV4_START = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\d)")
_ADDRESS_START = re.compile(r"[0-9A-Fa-f:.]+")
_CLASSES = frozenset(["alpha", "digit", "alnum", "upper", "lower", "space", "blank", "punct", "print", "graph", "cntrl", "xdigit"])


@attrs.frozen
class Item:
    """One item of a list. ``matches`` is None for an item with a fault, which is only reported."""

    matches: Matcher | None
    action: str
    rest: str
    """The value from this item on, for messages."""
    pattern: str = ""
    tried: Message | None = None
    matched: Message | None = None
    fault: Message | None = None
    reason: tuple[str, ...] = ()
    needs_address: bool = False
    """A network: looked at only when the text is an IP address."""
    limited: bool = False
    """A regular expression: the text must not be longer than MAX_SUBJECT."""


@attrs.frozen
class PatternList:
    """A parsed value."""

    items: tuple[Item, ...]
    default: str | None
    default_rest: str = ""

    def evaluate(self, subject: str, report: Report, traced: bool = False) -> str | None:
        """The action for ``subject``, or None when nothing matches. Faults met on the way go to ``report``."""
        if not self.items and not traced:
            return self.default
        action = self._evaluate(subject, report, traced)
        if traced:
            report(TRACE_RESULT, subject, action or "")
        return action

    def _evaluate(self, subject: str, report: Report, traced: bool) -> str | None:
        for item in self.items:
            if item.needs_address and parse_address(subject) is None:
                continue
            if item.matches is None:
                if item.fault is not None:
                    report(item.fault, *item.reason, item.rest)
                continue
            if traced and item.tried is not None:
                report(item.tried, item.pattern, item.action)
            if item.limited and len(subject) > MAX_SUBJECT:
                report(REGEX_MATCH, f"text longer than {MAX_SUBJECT} characters", item.rest)
                continue
            if item.matches(subject):
                if traced and item.matched is not None:
                    report(item.matched, subject, item.rest)
                return item.action
        if traced and self.default is not None:
            report(TRACE_DEFAULT, subject, self.default_rest)
        return self.default


def parse(value: str) -> PatternList:
    """The list that ``value`` is. Never raises: faults are kept in their items."""
    return _parse_and_keep(value) if len(value) <= LONGEST_KEPT else _parse(value)


@lru_cache(maxsize=REMEMBERED)
def _parse_and_keep(value: str) -> PatternList:
    return _parse(value)


def _parse(value: str) -> PatternList:
    items: list[Item] = []
    position = 0
    while True:
        position = _skip_blanks(value, position)
        if position >= len(value):
            return PatternList(tuple(items), None)
        kind = value[position]
        if kind not in "[!/":
            action, _ = read_action(value, position)
            return PatternList(tuple(items), action, value[position:])
        item, position = _ITEMS[kind](value, position)
        items.append(item)


def _skip_blanks(value: str, position: int) -> int:
    while position < len(value) and value[position] in " \t":
        position += 1
    return position


def read_action(value: str, position: int) -> tuple[str, int]:
    """The action at ``position`` without its quotes and escapes, and where it ends: at a blank outside quotes."""
    taken: list[str] = []
    quote = ""
    while position < len(value):
        mark = value[position]
        if mark == "\\" and position + 1 < len(value):
            position += 1
            taken.append(_ESCAPES.get(value[position], value[position]))
        elif quote:
            if mark == quote:
                quote = ""
            else:
                taken.append(mark)
        elif mark in "\"'":
            quote = mark
        elif mark in " \t":
            break
        else:
            taken.append(mark)
        position += 1
    return "".join(taken), position


def _closing(value: str, start: int, delimiter: str) -> int:
    """Position of the delimiter that ends the pattern begun before ``start``; -1 when the item has none."""
    position = start
    while position < len(value) and value[position] not in " \t":
        if value[position] == "\\":
            position += 1
        elif value[position] == delimiter:
            return position if position > start else -1
        position += 1
    return -1


def _faulty(value: str, start: int, fault: Message, *reason: str, needs_address: bool = False, end: int | None = None) -> tuple[Item, int]:
    stop = read_action(value, start)[1] if end is None else end
    return Item(None, "", value[start:], fault=fault, reason=reason, needs_address=needs_address), stop


def _network_item(value: str, start: int) -> tuple[Item, int]:
    closing = _closing(value, start + 1, "]")
    if closing < 0:
        return _faulty(value, start, NETWORK_DELIMITER, needs_address=True)
    action, end = read_action(value, closing + 1)
    pattern = value[start + 1 : closing]
    network = parse_network(pattern)
    if isinstance(network, Message):
        return _faulty(value, start, network, needs_address=True, end=end)
    item = Item(_network_matcher(network), action or "SKIP", value[start:], pattern, TRACE_NETWORK, TRACE_NETWORK_MATCH, needs_address=True)
    return item, end


def _glob_item(value: str, start: int) -> tuple[Item, int]:
    closing = _closing(value, start + 1, "!")
    if closing < 0:
        return _faulty(value, start, GLOB_DELIMITER)
    action, end = read_action(value, closing + 1)
    pattern = value[start + 1 : closing]
    if len(pattern) > MAX_PATTERN:
        return _faulty(value, start, GLOB_DELIMITER, end=end)
    return Item(glob(pattern), action or "SKIP", value[start:], pattern, TRACE_GLOB, TRACE_GLOB_MATCH), end


def _regex_item(value: str, start: int) -> tuple[Item, int]:
    closing = _closing(value, start + 1, "/")
    if closing < 0:
        return _faulty(value, start, REGEX_DELIMITER)
    action, end = read_action(value, closing + 1)
    pattern = value[start + 1 : closing]
    compiled = regex(pattern)
    if isinstance(compiled, str):
        return _faulty(value, start, REGEX_SYNTAX, compiled, end=end)
    return Item(compiled, action or "SKIP", value[start:], pattern, TRACE_REGEX, TRACE_REGEX_MATCH, limited=True), end


_ITEMS: dict[str, Callable[[str, int], tuple[Item, int]]] = {"[": _network_item, "!": _glob_item, "/": _regex_item}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network | Message:
    """``192.0.2.0/24``, ``2001:db8::/32`` or one address; else the message that says what is wrong with it."""
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    found = _IPV4_START.match(text) or _ADDRESS_START.match(text)
    if found is None:
        return NETWORK_ADDRESS
    try:
        address = ipaddress.ip_address(found.group())
    except ValueError:
        return NETWORK_ADDRESS
    rest = text[found.end() :]
    bits: int = address.max_prefixlen
    if rest:
        digits = rest[1:]
        if rest[0] != "/" or not digits.isascii() or not digits.isdigit() or len(digits) > 3 or int(digits) > bits:
            return NETWORK_BITS
        bits = int(digits)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None and bits >= 96:
        address, bits = address.ipv4_mapped, bits - 96
    return ipaddress.ip_network((address, bits), strict=False)


def _network_matcher(network: Network) -> Matcher:
    def matches(subject: str) -> bool:
        address = parse_address(subject)
        return address is not None and address.version == network.version and address in network

    return matches


@lru_cache(maxsize=REMEMBERED)
def glob(text: str) -> Matcher:
    """Does the whole of a text match? ``*`` any run, ``?`` one character, ``[a-z]`` a class, ``\\x`` the character x."""
    if text == "*":
        return lambda subject: True
    compiled = re2.compile(_octets(rf"\A(?s:{_glob_expression(text)})\z"), _options(posix=False))
    return lambda subject: len(subject) <= MAX_GLOB_SUBJECT and compiled.search(_octets(subject)) is not None


def _glob_expression(text: str) -> str:
    written: list[str] = []
    position = 0
    while position < len(text):
        mark = text[position]
        position += 1
        if mark == "*":
            if written[-1:] != [".*"]:
                written.append(".*")
        elif mark == "?":
            written.append(".")
        elif mark == "\\" and position < len(text):
            written.append(_quoted(text[position]))
            position += 1
        elif mark == "[":
            members, position = _glob_class(text, position)
            written.append(members)
        else:
            written.append(_quoted(mark))
    return "".join(written)


def _glob_class(text: str, start: int) -> tuple[str, int]:
    """The class that begins behind a ``[``; without closing bracket, or with a backward range, the bracket is itself."""
    position = start
    negated = text[position : position + 1] in ("^", "!") and position < len(text)
    if negated:
        position += 1
    members: list[tuple[str, bool]] = []
    first = position
    while position < len(text) and (text[position] != "]" or position == first):
        escaped = text[position] == "\\" and position + 1 < len(text)
        if escaped:
            position += 1
        members.append((text[position], escaped))
        position += 1
    if position >= len(text):
        return r"\[", start
    written: list[str] = []
    index = 0
    while index < len(members):
        low = members[index][0]
        if index + 2 < len(members) and members[index + 1] == ("-", False):
            high = members[index + 2][0]
            if low > high:
                return r"\[", start
            written.append(f"{_quoted(low)}-{_quoted(high)}")
            index += 3
        else:
            written.append(_quoted(low))
            index += 1
    return f"[{'^' if negated else ''}{''.join(written)}]", position + 1


def _quoted(character: str) -> str:
    if character.isalnum() or character == "_" or not character.isascii():
        return character
    return f"\\x{{{ord(character):x}}}"


@lru_cache(maxsize=REMEMBERED)
def regex(text: str) -> Matcher | str:
    """A POSIX extended regular expression that searches anywhere, or why it is not one."""
    if len(text) > MAX_PATTERN:
        return "expression too long"
    expression = _posix_to_re2(text)
    if isinstance(expression, Refused):
        return expression.reason
    try:
        compiled = re2.compile(_octets(expression), _options(posix=True))
    except re2.error as error:
        reason = error.args[0] if error.args else "not valid"
        return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return lambda subject: compiled.search(_octets(subject)) is not None


@attrs.frozen
class Refused:
    """An expression that is not taken."""

    reason: str


def _posix_to_re2(text: str) -> str | Refused:
    """RE2's spelling of a POSIX expression: brackets hold no escapes, and no operator of other dialects gets in."""
    written: list[str] = []
    position = 0
    quantified = False
    while position < len(text):
        mark = text[position]
        if mark == "[":
            members = _posix_bracket(text, position + 1)
            if isinstance(members, Refused):
                return members
            written.append(members[0])
            position = members[1]
            quantified = False
            continue
        if mark == "\\":
            if position + 1 >= len(text):
                return Refused("trailing backslash")
            following = text[position + 1]
            written.append(_quoted(following) if not following.isalnum() else mark + following)
            position += 2
            quantified = False
            continue
        if mark == "(" and text[position + 1 : position + 2] == "?":
            return Refused("no group may begin with (?")
        if quantified and mark in "*+?":
            return Refused(f"{mark} may not follow a quantifier")
        quantified = mark in "*+?" or (mark == "}" and "{" in text[:position])
        written.append(mark)
        position += 1
    return "".join(written)


def _posix_bracket(text: str, start: int) -> tuple[str, int] | Refused:
    written = ["["]
    position = start
    if text[position : position + 1] == "^":
        written.append("^")
        position += 1
    first = position
    while position < len(text):
        mark = text[position]
        if mark == "]" and position > first:
            return "".join([*written, "]"]), position + 1
        kind = text[position + 1 : position + 2]
        if mark == "[" and kind in (":", "=", ".") and kind:
            end = text.find(f"{kind}]", position + 2)
            name = text[position + 2 : end]
            if end < 0 or (kind == ":" and name not in _CLASSES) or (kind != ":" and len(name) != 1):
                return Refused(f"bad bracket element {text[position : position + 12]}")
            written.append(f"[:{name}:]" if kind == ":" else _quoted(name))
            position = end + 2
            continue
        is_range = mark == "-" and position > first and text[position + 1 : position + 2] not in ("]", "")
        written.append("-" if is_range else _quoted(mark))
        position += 1
    return Refused("missing ]")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _options(posix: bool) -> Any:
    options = re2.Options()
    options.posix_syntax = posix
    options.perl_classes = posix
    options.word_boundary = posix
    options.one_line = posix
    options.never_capture = True
    options.log_errors = False
    options.max_mem = MAX_COMPILED
    return options
