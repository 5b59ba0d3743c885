"""digest-bl: parts of messages that are known to be bad, by the digest of their content.

Every part of a message, decoded, is looked up in DNS lists of digests once the message has come in. Source: spec chapter
filters-content, 15.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from smtpf.dns.domains import is_address
from smtpf.dns.lists import DnsListOption, DnsLists, Listing, MaybeFound, parse_lists
from smtpf.filters.dns_list import FOUND
from smtpf.filters.mime_pass import listen, walked
from smtpf.message.mime import Part, PartListener
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.store import Settings
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver
    from smtpf.journal.journal import Journal

DIGEST_BL = DnsListOption(
    "digest-bl",
    "",
    "DNS lists of digests. A message with a listed part is refused. MD5 digests are asked for; sha1! or sha256! in front of a suffix "
    "selects another kind.",
    choices="DNS suffix[/mask]; default mask 0x00FFFFFE",
    runtime=False,
    since="later",
    area="digest",
)

BLOCKED = Reply(
    870, "550 5.7.0 message contains blocked MIME part (%s)", meaning="A part of the message is in the list of digest-bl that is named."
)
HIT = Counter("digest-bl", Group.MSG, "Messages with a part found in digest-bl.", since="later")

KINDS = ("md5", "sha1", "sha256")
MAX_LABEL = 63
"""Octets of a DNS label."""
MAX_ASKED = 100
"""Parts of one message that are looked up, the first ones."""


class PartDigests(PartListener):
    """Digests of each part; ``found`` has those of complete ones, without repetitions."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._kinds = tuple(kinds)
        self._open: dict[Part, list[Any]] = {}
        self.found: list[tuple[str, str]] = []
        """Kind, and digest as it is asked for."""

    def decoded(self, part: Part, octets: bytes) -> None:
        hashes = self._open.get(part)
        if hashes is None:
            hashes = self._open[part] = [hashlib.new(kind, usedforsecurity=False) for kind in self._kinds]
        for each in hashes:
            each.update(octets)

    def end(self, part: Part) -> None:
        for kind, each in zip(self._kinds, self._open.pop(part, ()), strict=False):
            digest = (kind, written(each.digest()))
            if digest not in self.found and len(self.found) < MAX_ASKED * len(self._kinds):
                self.found.append(digest)


@attrs.define
class _OfMessage:
    digests: PartDigests | None = None
    judged: bool = False


class DigestLists(Filter):
    """Looks parts up."""

    def __init__(self, resolver: Resolver, journal: Journal) -> None:
        self._resolver = resolver
        self._journal = journal
        self._lists: dict[str, DnsLists] = {}

    def configure(self, settings: Settings) -> None:
        elements = settings[DIGEST_BL]
        self._lists = {
            kind: DnsLists(self._resolver, parse_lists(own), self._journal.write) for kind, own in by_kind(elements).items() if own
        }

    def headers(self, session: Session, transaction: Transaction) -> None:
        if self._lists:
            own = transaction.own(_OfMessage)
            own.digests = PartDigests(self._lists)
            listen(transaction, own.digests)

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        return self.dot(session, transaction) if transaction.complete else None

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not self._lists:
            return None
        own = transaction.own(_OfMessage)
        if own.digests is None or own.judged or not walked(transaction):
            return None
        own.judged = True
        return self._look_up(session, transaction, own.digests.found) if own.digests.found else None

    async def _look_up(self, session: Session, transaction: Transaction, digests: list[tuple[str, str]]) -> Verdict | None:
        """All at the same time; the first part that is listed decides."""
        asked = [_begun(self._lists[kind].name(digest)) for kind, digest in digests]
        verdict: Verdict | None = None
        for (_, digest), waiting in zip(digests, asked, strict=True):
            if verdict is not None:
                _abandon(waiting)
                continue
            listing = await waiting if isinstance(waiting, Deferred) else waiting
            if listing is not None:
                session.log(FOUND, DIGEST_BL.name, digest, listing.name)
                session.count(HIT)
                transaction.flags.add(MsgFlag.POLICY)
                verdict = reject(BLOCKED, listing.name, fact=f"{digest}.{listing.name}")
        return verdict


def written(digest: bytes) -> str:
    """Hexadecimal; in base 32 where that would not fit into a DNS label (RFC 1035 2.3.4)."""
    return digest.hex() if len(digest) * 2 <= MAX_LABEL else base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def by_kind(elements: Sequence[str]) -> dict[str, list[str]]:
    """The elements of the option by kind of digest; an address belongs to the list in front of it."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    kind = KINDS[0]
    for element in elements:
        prefix, mark, rest = element.partition("!")
        if mark and prefix.lower() in KINDS:
            kind, element = prefix.lower(), rest
        elif not is_address(element):
            kind = KINDS[0]
        found[kind].append(element)
    return found


def _begun(found: MaybeFound) -> Deferred[Listing | None] | Listing | None:
    return found if found is None or isinstance(found, Listing) else ensureDeferred(found)


def _abandon(waiting: Deferred[Listing | None] | Listing | None) -> None:
    if isinstance(waiting, Deferred):
        waiting.addErrback(lambda cancelled: None)
        waiting.cancel()
