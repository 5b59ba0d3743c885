"""DNS lists (RFC 5782): what an operator lists as ``suffix/mask``, and the search of several lists at the same time.

One engine for addresses, domain names and digests: black, grey and white lists of client addresses, and all lists of
message content. An answer counts only when it is a code of 127/8 or 0/8 that the mask or code list selects. The answers by
which list operators say that they refuse to answer, answers outside those networks, and zones that list everything are
no listings: each is logged once an hour. Source: spec chapters filters-envelope, 5; filters-content, 13.2.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred

from smtpf.dns.answer import Answer
from smtpf.dns.wire import plain_name
from smtpf.journal.message import Message, warn
from smtpf.settings.option import OptionError, Words, parse_number

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

DEFAULT_MASK = 0x00FFFFFE
MAX_NAME = 253
WARN_EVERY = 3600.0
"""Seconds between two log lines about the same trouble of the same list."""
TEST_ADDRESS = "1.0.0.127"
"""127.0.0.1, which no list of addresses may hold (RFC 5782 5), in query order."""
TEST_NAME = "invalid"
"""The name that no list of names may hold (RFC 5782 5)."""

REFUSED = warn(
    1160,
    "DNS list %s answers with error code %s",
    "The list's operator refuses queries from this DNS server: unregistered use, too many queries, or a public resolver. "
    "The list finds nothing until that is settled.",
    fields=("list", "code"),
    since="later",
)
NOT_A_LIST = warn(
    1161,
    "DNS list %s answers %s, which is no list code",
    "The answer lies outside 127.0.0.0/8. The domain of the list may have been given up and parked; remove it from the options.",
    fields=("list", "answer"),
    since="later",
)
LISTS_EVERYTHING = warn(
    1162,
    "DNS list %s lists everything",
    "The list says yes even to its test entry that must never be listed, so its answers are not believed. Remove it from the options.",
    fields=("list",),
    since="later",
)
FAILED = warn(
    1163,
    "DNS list %s query error: %s",
    "The list's servers answer with an error or not at all. Meanwhile nothing is found in this list.",
    fields=("list", "error"),
    since="later",
)

_THIS_NET = ipaddress.IPv4Network("0.0.0.0/8")
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_ERROR_CODES = ipaddress.IPv4Network("127.255.255.0/24")
_ASKED_AN_ADDRESS = "127.0.1.255"

Log = Callable[..., None]
"""``journal.write`` or a like function: a message and its arguments."""


@attrs.frozen
class DnsList:
    """One list: the domain under which it is published, and which of its codes count."""

    suffix: str
    """Without dots around it; the name shown in logs and replies."""
    mask: int = DEFAULT_MASK
    codes: frozenset[str] = frozenset()
    """When not empty, exactly these codes count and the mask does not."""

    def listed(self, code: str) -> bool:
        """An address record with ``code`` is a listing."""
        if code == _ASKED_AN_ADDRESS:
            return False
        if self.codes:
            return code in self.codes
        number = IPv4Address(code)
        return number not in _ERROR_CODES and (number in _LOOPBACK or number in _THIS_NET) and int(number) & self.mask != 0


class DnsListOption(Words):
    """An option that takes DNS lists; its value goes to ``parse_lists``."""

    def parse(self, text: str) -> tuple[str, ...]:
        elements = super().parse(text)
        try:
            parse_lists(elements)
        except ValueError as wrong:
            raise OptionError(f"takes a list of suffix, suffix/mask or suffix:code,code; {wrong}") from None
        return elements


def parse_lists(elements: Iterable[str]) -> tuple[DnsList, ...]:
    """Lists out of the elements of an option. An address after a ``suffix:code`` element is one more code of it.

    Raises ValueError, naming the element.
    """
    found: list[DnsList] = []
    for element in elements:
        if found and found[-1].codes and _is_code(element):
            found[-1] = attrs.evolve(found[-1], codes=found[-1].codes | {element})
        else:
            found.append(_parse_list(element))
    return tuple(found)


def _parse_list(element: str) -> DnsList:
    name, slash, mask_text = element.partition("/")
    name, colon, code_text = name.partition(":")
    suffix = plain_name(name.strip(".").lower())
    codes = frozenset(code for code in code_text.split(",") if code)
    if not suffix or (colon and slash) or (colon and not codes) or not all(_is_code(code) for code in codes):
        raise ValueError(f"not {element!r}")
    if not slash:
        return DnsList(suffix, codes=codes)
    try:
        octal = len(mask_text) > 1 and mask_text[0] == "0" and mask_text[1] not in "xX"
        mask = int(mask_text, 8) if octal else parse_number(mask_text)
    except ValueError:
        raise ValueError(f"not {element!r}") from None
    if not 0 <= mask <= 0xFFFFFFFF:
        raise ValueError(f"not {element!r}")
    return DnsList(suffix, mask)


def _is_code(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def reversed_address(address: str | IPv4Address | IPv6Address) -> str:
    """An address as it stands in front of a list's suffix: octets or nibbles backwards (RFC 5782 2.1, 2.4).

    IPv4-mapped addresses are asked for as IPv4.
    """
    given = ipaddress.ip_address(address) if isinstance(address, str) else address
    if isinstance(given, IPv6Address) and given.ipv4_mapped is not None:
        given = given.ipv4_mapped
    return given.reverse_pointer.rpartition(".")[0].rpartition(".")[0]


@attrs.frozen
class Listing:
    """A hit."""

    list: DnsList
    subject: str
    """What was put in front of the suffix."""
    code: str
    """The address record that made it a hit."""

    @property
    def name(self) -> str:
        """The list's name for logs and replies."""
        return self.list.suffix


Found = Listing | None
MaybeFound = Found | Coroutine[Deferred[Any], Any, Found]
"""Plain when every list answered from the cache, else to be awaited."""


class DnsLists:
    """The lists of one option, searched together."""

    def __init__(self, resolver: Resolver, lists: Sequence[DnsList], log: Log) -> None:
        """``log`` writes a message outside of any session; it hears of lists that misbehave."""
        self._resolver = resolver
        self._lists = tuple(lists)
        self._log = log
        self._warned: dict[tuple[str, int], float] = {}

    def __bool__(self) -> bool:
        return bool(self._lists)

    def address(self, address: str | IPv4Address | IPv6Address, timeout: float | None = None) -> MaybeFound:
        """The first list, in the order of the option, that holds ``address``."""
        return self._search(reversed_address(address), TEST_ADDRESS, timeout)

    def name(self, name: str, timeout: float | None = None) -> MaybeFound:
        """The first list, in the order of the option, that holds the domain name or digest ``name``."""
        return self._search(plain_name(name), TEST_NAME, timeout)

    def begin(self, address: str | IPv4Address | IPv6Address) -> None:
        """Ask about ``address`` without waiting: who asks a moment later shares what is under way."""
        subject = reversed_address(address)
        for entry in self._lists:
            self._ask(subject, entry, None)

    def _search(self, subject: str, test: str, timeout: float | None) -> MaybeFound:
        """All lists are asked at once, and each has ``timeout`` seconds from now."""
        if subject == test:
            return None
        asked = [self._ask(subject, entry, timeout) for entry in self._lists]
        if not any(isinstance(answer, Deferred) for answer in asked):
            known = zip(self._lists, asked, strict=True)
            if not any(self._hit(entry, subject, answer) for entry, answer in known if isinstance(answer, Answer)):
                return None
        return self._first(subject, test, asked, timeout)

    def _ask(self, subject: str, entry: DnsList, timeout: float | None) -> Answer | Deferred[Answer] | None:
        name = f"{subject}.{entry.suffix}"
        return self._resolver.query(name, "A", timeout) if len(name) <= MAX_NAME else None

    async def _first(self, subject: str, test: str, asked: list[Answer | Deferred[Answer] | None], timeout: float | None) -> Found:
        try:
            for index, entry in enumerate(self._lists):
                waiting = asked[index]
                answer = await waiting if isinstance(waiting, Deferred) else waiting
                asked[index] = None
                hit = self._hit(entry, subject, answer) if answer is not None else None
                if hit is not None and not await self._lists_everything(entry, test, timeout):
                    return hit
            return None
        finally:
            for rest in asked:
                if isinstance(rest, Deferred):
                    rest.addErrback(lambda cancelled: None)
                    rest.cancel()

    async def _lists_everything(self, entry: DnsList, test: str, timeout: float | None) -> bool:
        """The zone answers even for its test entry that must not be listed (RFC 5782 5)."""
        answer = await self._resolver.lookup(f"{test}.{entry.suffix}", "A", timeout)
        if not any(entry.listed(code) for code in answer.addresses):
            return False
        self._warn(LISTS_EVERYTHING, entry)
        return True

    def _hit(self, entry: DnsList, subject: str, answer: Answer) -> Found:
        if answer.failed:
            self._warn(FAILED, entry, answer.error_text)
            return None
        if answer.chain:
            return None  # the records are another name's
        for code in answer.addresses:
            if entry.listed(code):
                return Listing(entry, subject, code)
            number = IPv4Address(code)
            if number in _ERROR_CODES:
                self._warn(REFUSED, entry, code)
            elif number not in _LOOPBACK and number not in _THIS_NET:
                self._warn(NOT_A_LIST, entry, code)
        return None

    def _warn(self, message: Message, entry: DnsList, *args: Any) -> None:
        """At most once an hour for each list and kind of trouble."""
        now = self._resolver.seconds()
        last = self._warned.get((entry.suffix, message.number))
        if last is None or now - last >= WARN_EVERY:
            self._warned[entry.suffix, message.number] = now
            self._log(message, entry.suffix, *args)
