"""ixhash-bl: bodies that are known to be bad, by digests that survive small changes.

One of three digests is taken of what is left of the body when most of its text is thrown away, and looked up in DNS lists.
Which one depends on what the body is made of. Source: spec chapter filters-content, 16.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from smtpf.dns.lists import DnsListOption, DnsLists, Listing, parse_lists
from smtpf.filters.dns_list import FOUND
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.store import Settings
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver
    from smtpf.journal.journal import Journal

IXHASH_BL = DnsListOption(
    "ixhash-bl",
    "",
    "DNS lists of iXhash digests. A message whose body is listed is refused.",
    choices="DNS suffix[/mask]; default mask 0x00FFFFFE",
    runtime=False,
    since="later",
    area="ixhash",
)

BLOCKED = Reply(988, "550 5.7.0 message blocked by %s", meaning="The body of the message is in the list of ixhash-bl that is named.")
HIT = Counter("ixhash-bl", Group.MSG, "Messages found in ixhash-bl.", since="later")

_WHITE = b"\t\n\v\f\r "
_CONTROL = bytes(range(0x20)) + b"\x7f"
_GRAPH = bytes(range(0x21, 0x7F))
_ALPHANUMERIC = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SPECIAL = b"<>()|@*'!?,\0"
_DOT_FOR_UNDERSCORE = bytes.maketrans(b"_", b".")
_EQUAL_WHITE = re.compile(rb"([\t\n\v\f\r ])\1+")
_EQUAL_PRINT = re.compile(rb"([ -~])\1+")
_EQUAL_GRAPH = re.compile(rb"([!-~])\1+")


class _Squeezed:
    """A digest of octets among which equal neighbours of a class count once, the same however they come in pieces."""

    def __init__(self, equal: re.Pattern[bytes]) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self._equal = equal
        self._last = b""

    def take(self, data: bytes, left_out: bytes = b"") -> None:
        """``left_out`` octets count as neighbours, but not in the digest."""
        if not data:
            return
        squeezed = self._equal.sub(rb"\1", self._last + data)
        self._hash.update(squeezed[len(self._last) :].translate(None, left_out))
        self._last = data[-1:]

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class BodyDigests:
    """The three digests of one body, and the counts that choose between them."""

    def __init__(self) -> None:
        self._white = _Squeezed(_EQUAL_WHITE)
        self._signs = _Squeezed(_EQUAL_PRINT)
        self._graphs = _Squeezed(_EQUAL_GRAPH)
        self._octets = self._lines = self._blanks = self._special = 0

    def take(self, chunk: bytes) -> None:
        """The next whole lines."""
        self._octets += len(chunk)
        self._lines += chunk.count(b"\n")
        self._blanks += chunk.count(b" ") + chunk.count(b"\t")
        self._special += len(chunk) - len(chunk.translate(None, _SPECIAL)) + chunk.count(b":/")
        self._white.take(chunk.replace(b"\r\n", b"\n"), _GRAPH)
        self._signs.take(chunk.translate(_DOT_FOR_UNDERSCORE, _CONTROL + _ALPHANUMERIC + b"%&#;="))
        self._graphs.take(chunk.translate(None, _CONTROL + _WHITE + b"="))

    @property
    def all(self) -> tuple[str, str, str]:
        return self._white.digest, self._signs.digest, self._graphs.digest

    @property
    def chosen(self) -> str:
        """The digest to look up; empty for a body that is too short."""
        if self._blanks >= 20 and self._lines >= 2:
            return self._white.digest
        if self._special >= 3:
            return self._signs.digest
        return self._graphs.digest if self._octets >= 8 else ""


class IxHash(Filter):
    """Looks bodies up."""

    def __init__(self, resolver: Resolver, journal: Journal) -> None:
        self._resolver = resolver
        self._journal = journal
        self._lists = DnsLists(resolver, (), journal.write)

    def configure(self, settings: Settings) -> None:
        elements = settings[IXHASH_BL]
        self._lists = DnsLists(self._resolver, parse_lists(elements), self._journal.write)

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> None:
        if self._lists:
            transaction.own(BodyDigests).take(chunk)

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not self._lists:
            return None
        digest = transaction.own(BodyDigests).chosen
        return self._look_up(session, transaction, digest) if digest else None

    async def _look_up(self, session: Session, transaction: Transaction, digest: str) -> Verdict | None:
        found = self._lists.name(digest)
        listing = found if found is None or isinstance(found, Listing) else await found
        if listing is None:
            return None
        session.log(FOUND, IXHASH_BL.name, digest, listing.name)
        session.count(HIT)
        transaction.flags.add(MsgFlag.POLICY)
        return reject(BLOCKED, listing.name, fact=f"{digest}.{listing.name}")
