"""URIs and mail addresses in a message, found the way mail programs and browsers find them.

``UriScanner`` cuts text into tokens and takes the links of HTML whole; ``parse_uris`` says what a token names;
``embedded_uris`` looks into the path and query of a redirector. ``UriListener`` does this for all textual parts of a
message, for the URI tests that ask DNS lists about the hosts. Nothing is fetched or looked up here. Source: RFC 3986,
the WHATWG URL standard for http, https and ftp, spec chapter filters-content, 12 and 13.3 step 11.
"""

from __future__ import annotations

import html
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import attrs
import idna

from smtpf.message.mime import Part, PartListener

MAX_TOKEN = 4096
"""Characters of a token; the rest of a longer one is passed over."""
MAX_URIS = 1000
"""URIs of one message."""
MAX_TAG = 8192
"""Characters of an unfinished HTML tag that are kept back."""
MAX_DULL = 1024
"""Tokens that were no URIs, remembered while one text is looked at."""
MAX_DULL_TOKEN = 64
"""Characters of one that is remembered."""
MAX_EMBEDDED = 50
"""Pieces of one URI that are looked at for a URI inside it."""

KNOWN_SCHEMES = {
    "about": 0,
    "cid": 0,
    "data": 0,
    "email": 25,
    "file": 0,
    "from": 25,
    "ftp": 21,
    "gopher": 70,
    "http": 80,
    "https": 443,
    "imap": 143,
    "ip": 0,
    "javascript": 0,
    "ldap": 389,
    "mail": 25,
    "mailto": 25,
    "mid": 0,
    "nntp": 119,
    "pop": 110,
    "pop3": 110,
    "rtsp": 554,
    "smtp": 25,
    "telnet": 23,
}
"""Schemes that are reported, with their ports; 0 for those without one."""
MAIL_SCHEMES = frozenset({"mailto", "smtp", "email", "mail", "from"})
WEB_SCHEMES = frozenset({"http", "https", "ftp"})

KnownDomain = Callable[[str], bool]
"""Whether a host name, in lower case A-labels, ends in a top-level domain that exists."""


@attrs.frozen
class Uri:
    """What a token names."""

    text: str
    """As it stands in the message."""
    scheme: str
    host: str = ""
    """Lower case, A-labels; an IP address in its usual form without brackets; empty without one."""
    port: int = 0
    """As written, else the one of the scheme."""
    path: str = ""
    query: str = ""
    local: str = ""
    """Local part of a mail address."""
    implicit: bool = False
    """No scheme was written."""

    @property
    def mail(self) -> bool:
        """It is a mail address."""
        return self.local != ""

    @property
    def address(self) -> str:
        """``local@host`` of a mail address."""
        return f"{self.local}@{self.host}"

    @property
    def is_ip(self) -> bool:
        return _ip(self.host) is not None

    @property
    def decoded(self) -> str:
        """The text with its percent-encoding undone, for log and reply."""
        return unquote(self.text, errors="replace")


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_RUN_BEFORE = re.compile(r"(?<![A-Za-z0-9+.\-])[A-Za-z0-9+.\-]+\Z")
_ANOTHER = re.compile(r"[,;|*](?=(?:https?|ftp):/|www\.)", re.IGNORECASE)
_HOST_END = re.compile(r"[,;|*]")
_PORT = re.compile(r"\d{1,5}(?:/|\Z)")
_LABELS = re.compile(r"(?:[a-z0-9_\-]+\.)*(?:[a-z]+|xn--[a-z0-9\-]+)\Z")
_SPAN = re.compile(r"[A-Za-z0-9_\-\u0080-\U0010ffff]+(?:\.[A-Za-z0-9_\-\u0080-\U0010ffff]+)*")
_LOCAL_TAIL = re.compile(r"(?<![A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.\u0080-\U0010ffff])[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.\u0080-\U0010ffff]+\Z")
_LEADING_NAME = re.compile(r"[A-Za-z0-9]+=")
_TRAILING = ".,;:!?)]'*_"
_DOTS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61\u2027\ufe52", "."))
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_BIG5_DOT = re.compile("[\u00a1\ufffd][CDO]")
_DELIMITERS = '\\s\\x00-\\x1f\\x7f-\\x9f"<>{}\\\\^`'
_TOKEN = re.compile(f"[^{_DELIMITERS}]+")
_MARKS = tuple((mark, re.compile(f"{re.escape(mark)}[^{_DELIMITERS}]")) for mark in ".:%")
"""What the inside of a token must have to be a URI. Each begins with a letter of its own, which is searched for at the speed of memory."""
_CUTS = ' \t\n"<>{}'
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}\Z")
_NO_TOKEN = re.compile(f"[{_DELIMITERS}]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_LINK = re.compile(
    r"\b(?:href|src|action|background|formaction|poster|cite|data)\s{0,20}=\s{0,20}"
    r"(?:\"([^\"]{1,4096}+)|'([^']{1,4096}+)|([^\s\"'>][^\s>]{0,4096}+))"
    r"|\burl\s{0,20}[=(]\s{0,20}[\"']?([^\"'()>\s]{1,4096}+)",
    re.IGNORECASE,
)
_LONE_CR = re.compile(r"\r(?!\n)")
"""Passed over inside a token; in front of a line end it is as good as a blank."""
_REMOVED = re.compile(r"[\t\r\n]")


def parse_uris(token: str, known: KnownDomain, inner_dots: int = 1) -> list[Uri]:
    """What ``token`` names: nothing, one URI, or several joined by commas.

    A domain without a scheme needs ``inner_dots`` dots and a known top-level domain.
    """
    return [uri for piece in _ANOTHER.split(token) if (uri := _parse(piece, known, inner_dots)) is not None]


def _parse(token: str, known: KnownDomain, inner_dots: int, behind_word: bool = False) -> Uri | None:
    """One URI; ``behind_word`` when ``token`` is what stood behind a word and a colon."""
    text = token[:-1] if token.endswith(".") else token
    decoded = unquote(text, errors="replace") if "%" in text else text
    colon = decoded.find(":")
    if colon < 0 or _bare_ip(decoded) is not None or _is_host_and_port(decoded, colon):
        return _without_scheme(text, decoded, known, inner_dots)
    found = _SCHEME.match(decoded)
    if found is not None:
        scheme = found[1].lower()
        behind = found.end(1)
    else:
        behind = decoded.find("://")
        found = _RUN_BEFORE.search(decoded, max(0, behind - 64), behind) if behind > 0 else None
        if found is None or "@" in decoded[: found.start()]:
            return _without_scheme(text, decoded, known, inner_dots)
        scheme = _known_ending(found[0].lower())
    if scheme not in KNOWN_SCHEMES:
        # "Web:www.example.com" and "www.example.com: see there" are words and a colon, and readers see a link to click on.
        rest = decoded[behind + 1 :]
        return None if behind_word or rest.startswith("/") else _parse(rest or decoded[:behind], known, inner_dots, True)
    literal = text.lower().find(scheme + ":")
    if literal >= 0:
        rest = text[literal + len(scheme) + 1 :]
    else:
        rest = decoded[behind + 1 :]
        cut = _NO_TOKEN.search(rest)
        rest = rest[: cut.start()] if cut else rest
    return _with_scheme(text, scheme, rest)


def _is_host_and_port(text: str, colon: int) -> bool:
    """``www.example.com:8080/``: no scheme, though it looks like one."""
    return "." in text[:colon] and "/" not in text[:colon] and _PORT.match(text, colon + 1) is not None


def _known_ending(text: str) -> str:
    """The longest known scheme at the end of ``text``, else ``text``."""
    return max((scheme for scheme in KNOWN_SCHEMES if text.endswith(scheme)), key=len, default=text)


def _with_scheme(text: str, scheme: str, rest: str) -> Uri | None:
    rest, query = _split(rest)
    port = KNOWN_SCHEMES[scheme]
    if scheme in MAIL_SCHEMES and not rest.startswith("//"):
        return _mail(text, rest, query, scheme, False)
    if scheme in WEB_SCHEMES:
        rest = "//" + rest.replace("\\", "/").lstrip("/")
    if rest.startswith("//") or (rest.startswith("/") and port):
        authority, slash, path = rest.lstrip("/").partition("/") if port else rest[2:].partition("/")
        host, given = _authority(authority)
        if scheme == "file" and not authority:
            host = "localhost"
        if host is None or (port and not host):
            return None
        return Uri(text, scheme, host, given or port, slash + path, query)
    if port:
        return None
    return Uri(text, scheme, "localhost" if scheme == "file" and rest.startswith("/") else "", 0, rest, query)


def _without_scheme(text: str, decoded: str, known: KnownDomain, inner_dots: int) -> Uri | None:
    if not text:
        return None
    address = _bare_ip(decoded)
    if address is not None:
        return Uri(text, "ip", str(address), 0, implicit=True)
    rest, query = _split(decoded)
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        host, given = _authority(authority)
        return Uri(text, "http", host, given or 80, slash + path, query, implicit=True) if host and known(host) else None
    if rest.startswith("/"):
        return None
    if "@" in rest:
        found = _mail(text, rest, query, "mailto", True)
        if found is not None:
            return found
    authority, slash, path = rest.partition("/")
    host, given = _authority(authority)
    if not host or host.count(".") < inner_dots or _ip(host) is not None or not known(host):
        return None
    return Uri(text, "http", host, given or 80, slash + path, query, implicit=True)


def _split(rest: str) -> tuple[str, str]:
    """Without fragment; query apart."""
    before, _, query = rest.partition("#")[0].partition("?")
    return before, query


def _mail(text: str, rest: str, query: str, scheme: str, implicit: bool) -> Uri | None:
    """``rest`` as a mail address: the longest local part before an at-sign, a domain with an inner dot behind it."""
    plain = unquote(rest, errors="replace") if "%" in rest else rest
    at = plain.find("@")
    for _ in range(MAX_EMBEDDED):
        if at < 0:
            break
        local = _LOCAL_TAIL.search(plain, max(0, at - 256), at)
        span = _SPAN.match(plain, at + 1)
        host = _host_name(span[0]) if span else None
        if local is not None and host is not None and "." in host:
            return Uri(text, "mailto" if implicit else scheme, host, 25, "", query, local[0].lstrip("."), implicit)
        at = plain.find("@", at + 1)
    return None


def _authority(text: str) -> tuple[str | None, int]:
    """Host and port of ``user:password@host:port``; host None if it is neither a name nor an address."""
    host = text.rpartition("@")[2]
    if "%" in host:
        host = unquote(host, errors="replace")
    if not host.startswith("["):
        host = _HOST_END.split(host, maxsplit=1)[0].rstrip(_TRAILING)
    if host.startswith("["):
        inner, _, behind = host[1:].partition("]")
        address = _ip(inner)
        return (None if address is None else str(address)), _port(behind[1:])
    name, colon, port = host.partition(":")
    if colon and not port.isdigit():
        return None, 0
    number = _numeric_address(name)
    return (_host_name(name.rstrip(".")) if number is None else number), _port(port)


def _port(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536 else 0


def _host_name(name: str) -> str | None:
    """``name`` as lower case A-labels; None if it is no host name."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name.translate(_DOTS))
    if len(name) > 255:
        return None
    host = name.lower()
    if not host.isascii():
        labels = [_a_label(label) for label in host.split(".")]
        host = ".".join(label or "" for label in labels)
    return host if _LABELS.match(host) and ".." not in host else None


def _a_label(label: str) -> str | None:
    if label.isascii():
        return label
    if len(label) > 63:
        return None
    try:
        return idna.encode(label, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return "xn--" + label.encode("punycode").decode("ascii")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not _ADDRESS.match(text) or (text.count(":") < 2 and text.count(".") != 3):
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _bare_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return None if len(text) < 3 or "%" in text else _ip(text)


def _numeric_address(name: str) -> str | None:
    """An IPv4 address in any spelling a browser takes: decimal, octal or hexadecimal, one to four numbers."""
    parts = name.rstrip(".").split(".")
    if len(parts) > 4 or not parts[-1][:1].isdigit():
        return None
    numbers = []
    for part in parts:
        try:
            if part[:2].lower() == "0x":
                numbers.append(int(part[2:] or "0", 16))
            elif not part.isascii() or not part.isdigit() or len(part) > 16:
                return None
            else:
                numbers.append(int(part, 8) if part.startswith("0") and len(part) > 1 else int(part))
        except ValueError:
            return None
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):
        return None
    value = numbers[-1]
    for place, number in enumerate(numbers[:-1]):
        value += number << (8 * (3 - place))
    return str(ipaddress.IPv4Address(value))


def embedded_uris(uri: Uri, known: KnownDomain) -> list[Uri]:
    """URIs inside the query and path of ``uri``, such as the target of a redirector. Two inner dots are required."""
    pieces = [*(uri.query or uri.path).split("&"), *uri.query.split("/"), *uri.path.split("/")]
    for whole in (uri.query, uri.path):
        at = whole.find("://")
        if at > 0:
            pieces.append(whole[whole.rfind("/", 0, at) + 1 :])
    found: dict[tuple[str, str, int], Uri] = {}
    for piece in [piece for piece in pieces if piece][: 2 * MAX_EMBEDDED]:
        name = _LEADING_NAME.match(piece)
        value = piece[name.end() :] if name else piece
        for inner in parse_uris(unquote(value, errors="replace") if "%" in value else value, known, 2):
            found.setdefault((inner.local, inner.host, inner.port), inner)
    return list(found.values())[:MAX_EMBEDDED]


class UriScanner:
    """Finds the URIs of one text, ``MAX_URIS`` different tokens at most, fed piece by piece in any segmentation."""

    def __init__(self, known: KnownDomain, markup: bool = False) -> None:
        self._known = known
        self._markup = markup
        self._rest = ""
        self._tokens: set[str] = set()
        """Tokens and links that were URIs: each is reported once, so that copies of one do not use up the limit."""
        self._dull: set[str] = set()
        """Some tokens that were none: words with a dot inside come again and again."""

    def feed(self, text: str) -> list[Uri]:
        """The URIs that are complete by ``text``."""
        whole = self._rest + text if self._rest else text
        cut = self._complete(whole)
        self._rest = whole[cut:]
        return self._found(whole[:cut])

    def end(self) -> list[Uri]:
        """The URIs at the very end of the text."""
        rest, self._rest = self._rest, ""
        return self._found(rest)

    def _found(self, text: str) -> list[Uri]:
        return list(self._scan(text)) if len(self._tokens) < MAX_URIS else []

    def _complete(self, whole: str) -> int:
        """Up to where ``whole`` can be looked at: a token, an entity or a tag may go on in the next piece."""
        end = len(whole)
        limit = max(0, end - MAX_TOKEN)
        while end > limit and whole[end - 1] not in _CUTS:
            end -= 1
        if end == limit:
            end = 0 if limit == 0 else len(whole)
        if self._markup:
            tag = whole.rfind("<", 0, end)
            if tag >= 0 and whole.find(">", tag, end) < 0 and len(whole) - tag <= MAX_TAG:
                return tag
        return end

    def _scan(self, text: str) -> Iterator[Uri]:
        """In the order of the text; a link of a tag in front of the tag's other words."""
        at = 0
        if self._markup and ("=" in text or "(" in text):
            for found in _LINK.finditer(text):
                tag = text.rfind("<", at, found.start())
                if tag > at:
                    yield from self._words(text[at:tag])
                    at = tag
                yield from self._new(found[1] or found[2] or found[3] or found[4], self._link)
        yield from self._words(text[at:])

    def _words(self, text: str) -> Iterator[Uri]:
        if "&" in text:
            text = _ENTITY.sub(_entity, text)
        if _LONE_CR.search(text):
            text = text.replace("\r", "")
        if not text.isascii():
            text = _INVISIBLE.sub("", _BIG5_DOT.sub(".", text)).translate(_DOTS)
        dull = self._dull
        for token in _marked_tokens(text):
            if token not in dull:
                found = self._new(token[:MAX_TOKEN], self._token)
                if found:
                    yield from found
                elif len(token) <= MAX_DULL_TOKEN and len(dull) < MAX_DULL:
                    dull.add(token)

    def _new(self, token: str, read: Callable[[str], list[Uri]]) -> list[Uri]:
        """What ``read`` makes of ``token``, unless it has been reported."""
        if token in self._tokens or len(self._tokens) >= MAX_URIS:
            return []
        found = read(token)
        if found:
            self._tokens.add(token)
        return found

    def _token(self, token: str) -> list[Uri]:
        name = _LEADING_NAME.match(token)
        if name:
            token = token[name.end() :]
        if token[:1] in ("(", "'"):
            token = token[1:]
        if token[-1:] in (")", "'"):
            token = token[:-1]
        token = token.strip("_")
        if not token.isascii():
            token = unicodedata.normalize("NFKC", token)
        return parse_uris(token, self._known) if token else []

    def _link(self, value: str) -> list[Uri]:
        """The value of an attribute, whole: blanks inside it do not end it."""
        value = _REMOVED.sub("", _ENTITY.sub(_entity, value)).strip()
        if not value.isascii():
            value = _INVISIBLE.sub("", value)
        if not (value.startswith(("//", "\\\\", "/\\", "\\/")) or _SCHEME.match(value)):
            return []
        return parse_uris(value.replace("\\", "/").replace(" ", "%20"), self._known)


def _marked_tokens(text: str) -> Iterator[str]:
    """The tokens with a mark inside or in front, in their order. Text between them is never taken apart."""
    places = [found.start() for mark, inside in _MARKS if mark in text for found in inside.finditer(text)]
    places.sort()
    at = 0
    for place in places:
        if place < at:
            continue
        begin = max(at, text.rfind(" ", at, place) + 1, text.rfind("\n", at, place) + 1)
        for token in _TOKEN.finditer(text, begin):
            if token.end() > place:
                at = token.end()
                yield token[0]
                break


def _entity(found: re.Match[str]) -> str:
    return html.unescape(found[0])


class UriListener(PartListener):
    """Collects the URIs of all textual parts of a message in their order, each once, ``MAX_URIS`` at most."""

    def __init__(self, known: KnownDomain) -> None:
        self.found: list[Uri] = []
        self._known = known
        self._seen: set[Uri] = set()
        self._scanners: dict[int, UriScanner] = {}

    def text(self, part: Part, text: str) -> None:
        scanner = self._scanners.get(part.number)
        if scanner is None:
            scanner = self._scanners[part.number] = UriScanner(self._known, part.html)
        self._keep(scanner.feed(text))

    def end(self, part: Part) -> None:
        scanner = self._scanners.pop(part.number, None)
        if scanner is not None:
            self._keep(scanner.end())

    def take(self) -> list[Uri]:
        """The URIs found since the last call."""
        found, self.found = self.found, []
        return found

    def _keep(self, uris: list[Uri]) -> None:
        for uri in uris:
            key = attrs.evolve(uri, text="", implicit=False)
            if key not in self._seen and len(self._seen) < MAX_URIS:
                self._seen.add(key)
                self.found.append(uri)


def scan_text(text: str, known: KnownDomain) -> list[Uri]:
    """The URIs of a header value or another short text."""
    scanner = UriScanner(known)
    return scanner.feed(text) + scanner.end()
