"""Addresses of MAIL and RCPT: one grammar for the session, the maps, the relay test, the log and the next hop.

Two steps, both linear in the length of the line and neither with an exception for bad input: ``parse_mail_argument``
and ``parse_rcpt_argument`` find where the path ends and what parameters follow it; ``parse_path`` takes the path apart
under the rules that the ``rfc2821-`` options choose. What cannot be parsed comes back as a value that says which reply
is due. Source: RFC 5321 4.1.2 and 4.1.3, RFC 6531 3.3, spec chapter session, 3.5 to 3.7.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs
import idna

from smtpf.settings.option import Flag

if TYPE_CHECKING:
    from smtpf.settings.store import Settings

ANGLE_BRACKETS = Flag(
    "rfc2821-angle-brackets",
    True,
    "Paths in MAIL and RCPT must stand in angle brackets, without blanks inside them, and a sender needs a domain with a dot. "
    "Switched off, the brackets may be missing.",
    area="rfc",
    aliases=("rfc2821-syntax",),
)
LOCAL_LENGTH = Flag(
    "rfc2821-local-length",
    False,
    "Refuse a local part of more than 64 octets. Off by default, because bounce addresses made by VERP and SRS are often longer.",
    area="rfc",
)
DOMAIN_LENGTH = Flag(
    "rfc2821-domain-length",
    False,
    "Refuse a domain in which one label is longer than 63 octets. A domain of more than 255 octets is refused in any case.",
    area="rfc",
)
LITERAL_PLUS = Flag(
    "rfc2821-literal-plus",
    False,
    "Treat a plus sign in a local part as ordinary text. Switched off, what follows the first plus sign is a detail, and map "
    "entries of the mailbox before it apply.",
    area="rfc",
)
EXTRA_SPACES = Flag(
    "rfc2821-extra-spaces",
    False,
    "Refuse blanks between FROM: or TO: and the path, which spam software often writes.",
    area="rfc",
)

MAX_LOCAL = 64
"""Octets of a local part under ``rfc2821-local-length`` (RFC 5321 4.5.3.1.1)."""
MAX_DOMAIN = 255
"""Octets of a domain (RFC 5321 4.5.3.1.2)."""
MAX_LABEL = 63
"""Octets of one label under ``rfc2821-domain-length`` (RFC 1035 2.3.4)."""


class Role(Enum):
    """Whether a path is the reverse-path of MAIL or a forward-path of RCPT: error codes and rules differ."""

    SENDER = "sender"
    RECIPIENT = "recipient"


@attrs.frozen
class PathRules:
    """What the options say about paths, and whether the client asked for SMTPUTF8."""

    angle_brackets: bool = True
    local_length: bool = False
    domain_length: bool = False
    literal_plus: bool = False
    utf8: bool = False

    @classmethod
    def of(cls, settings: Settings, utf8: bool = False) -> PathRules:
        """The rules in ``settings``; ``utf8`` when this transaction may carry UTF-8 addresses (RFC 6531)."""
        return cls(settings[ANGLE_BRACKETS], settings[LOCAL_LENGTH], settings[DOMAIN_LENGTH], settings[LITERAL_PLUS], utf8)


@attrs.frozen
class Path:
    """A path that obeys the grammar."""

    text: str
    """As written, angle brackets and source route included."""
    address: str = ""
    """As written, without angle brackets and source route: what is forwarded and logged. Empty for the null path."""
    local: str = ""
    """Local part as written, quotes and detail included."""
    mailbox: str = ""
    """Local part to compare and look up: lower case, without detail, quoted only where it cannot stand unquoted."""
    detail: str = ""
    """What follows the first plus sign of the local part, as written; empty without one."""
    domain: str = ""
    """Domain to compare and look up: lower case, A-labels; a literal as ``[192.0.2.1]`` or ``[ipv6:2001:db8::1]``."""
    literal: str = ""
    """The IP address of an address literal, in its usual text form; empty otherwise."""

    @property
    def is_null(self) -> bool:
        """The null path ``<>``."""
        return self.local == ""

    @property
    def qualified(self) -> bool:
        """It has a domain."""
        return self.domain != ""


NULL_PATH = Path("<>")


@attrs.frozen
class PathError:
    """Why a path was refused. The reply is ``CODE ERROR, sender PATH`` (#279) or ``..., recipient PATH`` (#284)."""

    path: str
    """As written."""
    error: str
    """Enhanced status code and text, such as ``5.1.7 address incomplete``."""

    @property
    def code(self) -> int:
        """553, or 451 for an error of class 4."""
        return 451 if self.error.startswith("4") else 553


@attrs.frozen
class Argument:
    """What stands behind ``MAIL FROM:`` or ``RCPT TO:``."""

    path: str
    """The path as written, to be given to ``parse_path``."""
    parameters: dict[str, str] = attrs.field(factory=dict)
    """ESMTP parameters: keywords in upper case, value empty for a keyword alone."""
    extra_spaces: bool = False
    """Blanks stood around the colon."""


class ArgumentFault(Enum):
    """What is wrong with an argument before its path is looked at."""

    MISSING = "missing"
    """No colon, or nothing after it: #249."""
    SYNTAX = "syntax"
    """Another word before the colon, or a parameter given twice: #280 for MAIL, #285 for RCPT."""


_BLANKS = " \t"
_BLANK = re.compile("[ \t]")
_QUOTED = r'"(?:\\.|[^"\\])*+"'
_OUTSIDE = re.compile(rf'\\.|{_QUOTED}|[^"\\<> \t]++|[<>]|[ \t]', re.DOTALL)
"""One step through a path: an escape, a quoted string, a run of plain octets, a bracket or a blank. Nothing matches at
a quote that never closes or a final backslash."""

_PLAIN = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
_ESCAPE = r"\\[\x20-\x7e]"
_LOCAL_ASCII = re.compile(rf'"(?:[\x20-\x21\x24-\x5b\x5d-\x7e]|{_ESCAPE})*+"|(?:{_PLAIN}|\.|{_ESCAPE})++')
_WIDE = r"\u00a0-\ud7ff\ue000-\U0010ffff"
_ESCAPE_WIDE = rf"\\[\x20-\x7e{_WIDE}]"
_LOCAL_UTF8 = re.compile(rf'"(?:[\x20-\x21\x24-\x5b\x5d-\x7e{_WIDE}]|{_ESCAPE_WIDE})*+"|(?:{_PLAIN}|\.|[{_WIDE}]|{_ESCAPE_WIDE})++')
_DOT_STRING = re.compile(rf"(?:{_PLAIN}|[{_WIDE}])++(?:\.(?:{_PLAIN}|[{_WIDE}])++)*+")
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)

_LABEL_ASCII = r"[A-Za-z0-9_\-]++"
_LABEL_UTF8 = rf"[A-Za-z0-9_\-{_WIDE}]++"
_DOMAIN_ASCII = re.compile(rf"{_LABEL_ASCII}(?:\.{_LABEL_ASCII})*+")
_DOMAIN_UTF8 = re.compile(rf"{_LABEL_UTF8}(?:\.{_LABEL_UTF8})*+")
_TOP_LABEL = re.compile(r"[A-Za-z0-9\-]*[A-Za-z][A-Za-z0-9\-]*\Z")
_HOP = rf"@(?:\[[0-9A-Za-z:.]++\]|{_LABEL_UTF8}(?:\.{_LABEL_UTF8})*+)"
_SOURCE_ROUTE = re.compile(rf"{_HOP}(?:,{_HOP})*+:(?=.)", re.DOTALL)
_LITERAL = re.compile(r"\[(?:(ipv6):)?([0-9A-Fa-f:.]{2,45})\]\Z", re.IGNORECASE)


def parse_mail_argument(argument: str) -> Argument | ArgumentFault:
    """Take ``FROM:<path> PARAMETERS`` apart; ``argument`` is what follows ``MAIL`` and its blank (RFC 5321 4.1.1.2)."""
    return _parse_argument(argument, "FROM")


def parse_rcpt_argument(argument: str) -> Argument | ArgumentFault:
    """Take ``TO:<path> PARAMETERS`` apart; ``argument`` is what follows ``RCPT`` and its blank (RFC 5321 4.1.1.3)."""
    return _parse_argument(argument, "TO")


def _parse_argument(argument: str, keyword: str) -> Argument | ArgumentFault:
    word, colon, behind = argument.partition(":")
    if not colon:
        return ArgumentFault.MISSING
    if word.strip(_BLANKS).upper() != keyword:
        return ArgumentFault.SYNTAX
    rest = behind.strip(_BLANKS)
    if not rest:
        return ArgumentFault.MISSING
    end = _path_end(rest)
    parameters: dict[str, str] = {}
    for parameter in filter(None, _BLANK.split(rest[end:])):
        name, _, value = parameter.partition("=")
        name = name.upper()
        if name in parameters:
            return ArgumentFault.SYNTAX
        parameters[name] = value
    spaced = behind[0] in _BLANKS or word != word.rstrip(_BLANKS)
    return Argument(rest[:end], parameters, spaced)


def _path_end(text: str) -> int:
    """Where the path at the start of ``text`` ends: behind its closing bracket, else at the first blank.

    A bracket that directly follows the closing one belongs to the path, so that ``<a@b.net>>`` is seen as imbalanced. A
    phrase before the bracket (``Joe <joe@example.com>``) belongs to it too.
    """
    depth = 0
    at = 0
    first_blank = -1
    after_blank = True
    while (step := _OUTSIDE.match(text, at)) is not None:
        found = step[0]
        at = step.end()
        if found == "<":
            if depth == 0 and not after_blank:
                break
            depth += 1
        elif found == ">":
            depth -= 1
            if depth <= 0:
                while text[at : at + 1] in ("<", ">"):
                    at += 1
                return at
        elif found in _BLANKS:
            if first_blank < 0:
                first_blank = step.start()
            if depth == 0:
                after_blank = True
            continue
        after_blank = False
    if first_blank >= 0:
        return first_blank
    blank = _BLANK.search(text, at)
    return blank.start() if blank else len(text)


@lru_cache(maxsize=1024)
def parse_path(text: str, role: Role, rules: PathRules) -> Path | PathError:
    """Parse one path under ``rules``. Linear in its length.

    Octets outside US-ASCII are only taken with ``rules.utf8``; ``text`` is then the decoded UTF-8.
    """
    inner = _unbracketed(text, rules.angle_brackets)
    if isinstance(inner, PathError):
        return inner
    if inner == "":
        return Path(text)
    if inner[0] == "@":
        route = _SOURCE_ROUTE.match(inner)
        if route is None:
            return PathError(text, "5.1.0 invalid source route")
        inner = inner[route.end() :]
    invalid = "5.1.7 invalid" if role is Role.SENDER else "5.1.3 invalid"
    found = (_LOCAL_UTF8 if rules.utf8 else _LOCAL_ASCII).match(inner)
    if found is None or inner[found.end() : found.end() + 1] not in ("@", ""):
        return PathError(text, f"{invalid} local part")
    local = found[0]
    content = _local_content(local)
    if content is None:
        return PathError(text, f"{invalid} local part")
    if rules.local_length and len(local.encode()) > MAX_LOCAL:
        return PathError(text, "5.1.0 local-part too long, see RFC 2821 section 4.5.3.1")
    has_domain = found.end() < len(inner)
    domain = _parse_domain(inner[found.end() + 1 :], role, rules) if has_domain else _Domain()
    if not domain.error and not domain.dotted and role is Role.SENDER and rules.angle_brackets:
        return PathError(text, "5.1.7 address incomplete")
    if domain.error or (has_domain and not domain.key):
        return PathError(text, domain.error or f"{invalid} domain name")
    mailbox, detail = _split_detail(content, rules.literal_plus)
    return Path(text, inner, local, _quote_if_needed(_fold(mailbox)), detail, domain.key, domain.literal)


def _unbracketed(text: str, strict: bool) -> str | PathError:
    """What stands between the brackets of ``text``."""
    opened = closed = -1
    at = 0
    while at < len(text):
        step = _OUTSIDE.match(text, at)
        if step is None:
            return PathError(text, "5.1.0 imbalanced angle brackets in path")
        at = step.end()
        if step[0] == "<":
            if opened >= 0:
                return PathError(text, "5.1.0 imbalanced angle brackets in path")
            opened = step.start()
        elif step[0] == ">":
            if opened < 0 or closed >= 0:
                return PathError(text, "5.1.0 imbalanced angle brackets in path")
            closed = step.start()
    if opened >= 0 and closed < 0:
        return PathError(text, "5.1.0 imbalanced angle brackets in path")
    if strict:
        if opened != 0 or closed != len(text) - 1:
            return PathError(text, "5.1.0 address does not conform to RFC 2821 syntax")
        return text[1:-1]
    return (text[opened + 1 : closed] if opened >= 0 else text).strip(_BLANKS)


def _local_content(local: str) -> str | None:
    """The local part that ``local`` spells, without quotes and backslashes; None for a misplaced dot."""
    if local[0] == '"':
        return _UNESCAPE.sub(r"\1", local[1:-1])
    bare = _UNESCAPE.sub("x", local)
    if bare[0] == "." or bare[-1] == "." or ".." in bare:
        return None
    return _UNESCAPE.sub(r"\1", local)


def _split_detail(content: str, literal_plus: bool) -> tuple[str, str]:
    """Mailbox and detail. A plus sign in front is part of the mailbox, for a mailbox is never empty."""
    plus = -1 if literal_plus else content.find("+", 1)
    return (content, "") if plus < 0 else (content[:plus], content[plus + 1 :])


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).lower()


def _quote_if_needed(content: str) -> str:
    """``content`` as a local part in its shortest spelling (RFC 5321 4.1.2)."""
    if _DOT_STRING.fullmatch(content):
        return content
    escaped = content.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@attrs.frozen
class _Domain:
    key: str = ""
    literal: str = ""
    dotted: bool = False
    error: str = ""


def _parse_domain(text: str, role: Role, rules: PathRules) -> _Domain:
    invalid = f"{'5.1.7' if role is Role.SENDER else '5.1.3'} invalid domain name"
    if text[:1] == "[":
        return _parse_literal(text, invalid)
    found = (_DOMAIN_UTF8 if rules.utf8 else _DOMAIN_ASCII).match(text)
    span = found[0] if found else ""
    dotted = "." in span
    if not dotted and role is Role.SENDER and rules.angle_brackets and len(span) <= MAX_DOMAIN:
        return _Domain()
    key = domain_key(span) if span else ""
    if key is None:
        return _Domain(error=invalid)
    if max(len(span.encode()), len(key)) > MAX_DOMAIN or (rules.domain_length and max(map(len, key.split("."))) > MAX_LABEL):
        return _Domain(error="5.1.0 domain name too long, see RFC 2821 section 4.5.3.1")
    if not key or len(span) != len(text) or (dotted and not _TOP_LABEL.match(key.rpartition(".")[2])):
        return _Domain(error=invalid)
    return _Domain(key, dotted=dotted)


def _parse_literal(text: str, invalid: str) -> _Domain:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 4.1.3). An IPv4-mapped address is its IPv4 address."""
    found = _LITERAL.match(text)
    if found is None:
        return _Domain(error=invalid)
    try:
        if found[1]:
            wide = ipaddress.IPv6Address(found[2])
            if wide.ipv4_mapped is None:
                return _Domain(f"[ipv6:{wide}]", str(wide), dotted=True)
            address = str(wide.ipv4_mapped)
        else:
            address = str(ipaddress.IPv4Address(found[2]))
    except ValueError:
        return _Domain(error=invalid)
    return _Domain(f"[{address}]", address, dotted=True)


def domain_key(domain: str) -> str | None:
    """``domain`` in the form in which domains are compared: lower case, every label an A-label (RFC 5890 2.3.2.1).

    None when a label outside US-ASCII is no U-label and so can name nothing in the DNS.
    """
    if domain.isascii():
        return domain.lower()
    labels = []
    for label in domain.split("."):
        if label.isascii():
            labels.append(label.lower())
            continue
        if len(label) > MAX_LABEL:
            return None
        try:
            encoded = idna.encode(label, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
        if "." in encoded:
            return None
        labels.append(encoded)
    return ".".join(labels)
