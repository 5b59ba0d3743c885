"""The access map: what the postmaster has written about clients, senders, recipients and hosts.

A look-up goes through the key sequence of its tag, takes the first key that exists, evaluates its pattern list, and
gives a ``Hit`` or None. Filters decide what the word of a hit means to them. A map in memory answers without waiting;
``await`` costs nothing then. Source: spec chapter maps, sections 6, 10, 13 and 14.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs
from twisted.internet.defer import Deferred

from smtpf.journal.journal import Journal
from smtpf.journal.message import Level, Message, err, warn
from smtpf.maps import keys, patterns
from smtpf.maps.source import Found, LookupFailed, Source, View
from smtpf.settings.option import Text

ACCESS_MAP = Text(
    "access-map",
    "sql!/etc/smtpf/access.sq3",
    "Back end and place of the policy map: file! with a text file, sql! with a compiled one, or socketmap! with the address of a server. "
    "Empty: no policy map.",
    choices="file!PATH|sql!PATH|socketmap!ADDR",
    runtime=False,
    area="access",
)
DISABLED = warn(115, "access-map option disabled", "The option is empty: every look-up in the access map finds nothing.")
TEXT_REFUSED = err(
    116,
    "access-map=%s text method no longer supported",
    "The access map cannot be opened as text!; write file! in front of the same path instead.",
    fields=("map",),
)
OPEN_ERROR = err(117, "access-map=%s open error", "The access map cannot be opened, and the program ends.", fields=("map",))

MAX_TOLD = 1000
"""Faulty values remembered, so that each is reported once."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_SIZE = re.compile(r"([+-]?[0-9]{1,15})([KMGkmg]?)", re.ASCII)
_LIMIT = re.compile(r"(-?[0-9]{1,15})/(?=.)([0-9]{0,9})([WDHMSwdhms]?)", re.ASCII)
_NO_LIMIT = re.compile(r"-[0-9]{1,15}", re.ASCII)
_UNIT_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_SIZE_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@attrs.frozen
class Hit:
    """An entry that speaks about what was asked."""

    key: str
    """As it stands in the map; ``<tag>invalid`` when the map could not be asked."""
    word: str
    """The action up to its first colon. DUNNO is given as SKIP."""
    parameter: str
    """The action behind its first colon; empty when there is none."""
    text: str
    """The whole action, without quotes: for tags that take numbers, lists, names or secrets."""
    failed: bool = False

    @classmethod
    def of(cls, key: str, action: str) -> Hit:
        word, _, parameter = action.partition(":")
        return cls(key, "SKIP" if word == "DUNNO" else word, parameter, action)


@attrs.frozen
class Limit:
    """``N/T[unit]``: so many messages in ``amount`` times ``unit``."""

    count: int
    """-1: no limit."""
    amount: int = 1
    unit: str = "s"
    """First letter of week, day, hour, minute or second, in lower case."""

    @property
    def seconds(self) -> int:
        return self.amount * _UNIT_SECONDS[self.unit]


class AccessMap:
    """Look-ups in the access map.

    Tags are written as in keys: lower case, with their colon (``grey-connect:``). ``sid`` is the session id for log lines.
    """

    def __init__(self, source: Source, journal: Journal) -> None:
        self.source = source
        self._journal = journal
        self._told: set[tuple[Message, str]] = set()
        source.when_loaded(self._told.clear)

    def holds(self, *tags: str) -> bool:
        """There may be entries of one of ``tags``: who needs several look-ups for one decision asks first."""
        known = self.source.view.tags
        return known is None or not known.isdisjoint(tags)

    async def lookup_client(self, tag: str, name: str, address: str, sid: str | None = None) -> Hit | None:
        """Client procedure: address sequence, name sequence, bare key. ``address`` may be empty (HELO)."""
        view = self.source.view
        if view.tags is not None and tag not in view.tags:
            return None
        search = _Search(self, view, tag, sid)
        if address:
            found, hit = await search.first(keys.address_sequence(address), (address,))
            if hit is not None:
                return hit
        else:
            found = False
        folded = keys.fold_domain(name)
        subjects = tuple(subject for subject in (folded, address) if subject) or ("",)
        found_name, hit = await search.first(keys.domain_sequence(name), subjects)
        if hit is not None:
            return hit
        if not name and address and tag.endswith("connect:"):
            parsed = keys.parse_address(address)
            if parsed is not None:
                found_name, hit = await search.first((keys.literal(parsed),), (address,))
                if hit is not None:
                    return hit
        if found or found_name:
            return None
        return (await search.first(("",), subjects))[1]

    async def lookup_address(self, tag: str, address: str, sid: str | None = None) -> Hit | None:
        """Address sequence alone, without bare key."""
        view = self.source.view
        if view.tags is not None and tag not in view.tags:
            return None
        return (await _Search(self, view, tag, sid).first(keys.address_sequence(address), (address,)))[1]

    async def lookup_domain(self, tag: str, name: str, sid: str | None = None) -> Hit | None:
        """Domain sequence of ``name``, then the bare key."""
        return await self.lookup_client(tag, name, "", sid)

    async def lookup_bare(self, tag: str, sid: str | None = None, subject: str = "") -> Hit | None:
        """The site-wide entry of a tag. ``subject`` is the domain that its pattern list, if it has one, is asked about."""
        view = self.source.view
        if view.tags is not None and tag not in view.tags:
            return None
        return (await _Search(self, view, tag, sid).first(("",), (keys.fold_domain(subject),)))[1]

    async def lookup_mail(self, tag: str, path: str, sid: str | None = None) -> Hit | None:
        """Mail procedure for ``local@domain``, ``local`` or the empty null sender: mail sequence, then the bare key."""
        view = self.source.view
        if view.tags is not None and tag not in view.tags:
            return None
        search = _Search(self, view, tag, sid)
        subjects = (keys.fold_mail(path),)
        found, hit = await search.first(keys.mail_sequence(path), subjects)
        if hit is not None or found:
            return hit
        return (await search.first(("",), subjects))[1]

    async def lookup_connect_from(self, name: str, address: str, sender: str, sid: str | None = None) -> Hit | None:
        """``connect:CLIENT:from:SENDER``, by address and then by name."""
        return await self._client_and_mail("connect:from:", ":from:", name, address, sender, sid)

    async def lookup_connect_to(self, name: str, address: str, recipient: str, sid: str | None = None) -> Hit | None:
        """``connect:CLIENT:to:RECIPIENT``, by address and then by name."""
        return await self._client_and_mail("connect:to:", ":to:", name, address, recipient, sid)

    async def _client_and_mail(self, tags: str, joint: str, name: str, address: str, mail: str, sid: str | None) -> Hit | None:
        view = self.source.view
        if view.tags is not None and tags not in view.tags:
            return None
        inner = keys.mail_sequence(mail) or ("",)
        outer = (*keys.address_sequence(address), *keys.domain_sequence(name))
        subjects = tuple(subject for subject in (address, keys.fold_domain(name)) if subject)
        texts = (f"{client}{joint}{path}" for client in outer for path in inner)
        search = _Search(self, view, "connect:", sid, failed_tag=tags)
        return (await search.first(texts, (*subjects, keys.fold_mail(mail))))[1]

    async def lookup_from_to(self, sender: str, recipient: str, sid: str | None = None) -> Hit | None:
        """``from:SENDER:to:RECIPIENT``."""
        view = self.source.view
        if view.tags is not None and "from:to:" not in view.tags:
            return None
        inner = keys.mail_sequence(recipient)
        texts = (f"{outer}:to:{path}" for outer in keys.sender_sequence(sender) for path in inner)
        search = _Search(self, view, "from:", sid, failed_tag="from:to:")
        return (await search.first(texts, (keys.fold_mail(sender), keys.fold_mail(recipient))))[1]

    async def lookup_client_number(self, tag: str, name: str, address: str, sid: str | None = None) -> int | None:
        """A whole number; None when there is no entry, no number in it, or the map cannot be asked."""
        return number_of(await self.lookup_client(tag, name, address, sid))

    async def lookup_mail_number(self, tag: str, path: str, sid: str | None = None) -> int | None:
        """As ``lookup_client_number``, for a mail address."""
        return number_of(await self.lookup_mail(tag, path, sid))

    async def lookup_client_size(self, tag: str, name: str, address: str, sid: str | None = None) -> int | None:
        """Octets, with K, M and G reckoned by 1024; -1 is no limit."""
        return size_of(await self.lookup_client(tag, name, address, sid))

    async def lookup_mail_size(self, tag: str, path: str, sid: str | None = None) -> int | None:
        """As ``lookup_client_size``, for a mail address."""
        return size_of(await self.lookup_mail(tag, path, sid))

    async def lookup_client_limit(self, tag: str, name: str, address: str, sid: str | None = None) -> Limit | None:
        """Messages per time."""
        return limit_of(await self.lookup_client(tag, name, address, sid))

    async def lookup_mail_limit(self, tag: str, path: str, sid: str | None = None) -> Limit | None:
        """As ``lookup_client_limit``, for a mail address."""
        return limit_of(await self.lookup_mail(tag, path, sid))

    async def lookup_client_list(self, tag: str, name: str, address: str, sid: str | None = None) -> tuple[str, ...] | None:
        """The elements of a list; None when there is no entry."""
        return list_of(await self.lookup_client(tag, name, address, sid))

    async def lookup_mail_list(self, tag: str, path: str, sid: str | None = None) -> tuple[str, ...] | None:
        """As ``lookup_client_list``, for a mail address."""
        return list_of(await self.lookup_mail(tag, path, sid))

    def start(self) -> None:
        self.source.start()

    def stop(self) -> Deferred[None] | None:
        return self.source.stop()

    def reload(self) -> Deferred[None] | None:
        """Read the map again now, for SIGHUP."""
        return self.source.reload()

    def evaluate(self, value: str, subject: str, sid: str | None = None) -> str | None:
        """The action that ``value`` gives for ``subject``; None when nothing matches."""
        traced = self._journal.enabled(patterns.TRACE_RESULT)

        def report(message: Message, *args: object) -> None:
            if message.level is Level.ERR and not traced:
                told = (message, str(args[-1]))
                if told in self._told:
                    return
                if len(self._told) >= MAX_TOLD:
                    self._told.clear()
                self._told.add(told)
            self._journal.write(message, *args, session=sid)

        return patterns.parse(value).evaluate(subject, report, traced)


class _Search:
    """One look-up: the view it began with, and what its messages and its failure are called."""

    __slots__ = ("_failed_tag", "_map", "_sid", "_tag", "_view")

    def __init__(self, access: AccessMap, view: View, tag: str, sid: str | None, failed_tag: str = "") -> None:
        self._map = access
        self._view = view
        self._tag = tag
        self._sid = sid
        self._failed_tag = failed_tag or tag

    async def first(self, texts: Iterable[str], subjects: tuple[str, ...]) -> tuple[bool, Hit | None]:
        """Was there a key that decides, and what does it say? A key whose action is NEXT counts as absent."""
        get = self._view.get
        for text in texts:
            key = self._tag + text
            answer = get(key)
            if answer is None:
                continue
            value: Found = await answer if isinstance(answer, Deferred) else answer
            if value is None:
                continue
            if isinstance(value, LookupFailed):
                return True, Hit(f"{self._failed_tag}invalid", "TEMPFAIL", "", "TEMPFAIL", failed=True)
            action = self._action(value, subjects)
            if action is None:
                return True, None
            if action != "NEXT":
                return True, Hit.of(key, action)
        return False, None

    def _action(self, value: str, subjects: tuple[str, ...]) -> str | None:
        for subject in subjects:
            action = self._map.evaluate(value, subject, self._sid)
            if action is not None:
                return action
        return None


def number_of(hit: Hit | None) -> int | None:
    """The whole number that an entry is."""
    return int(hit.text) if hit is not None and not hit.failed and _NUMBER.fullmatch(hit.text) else None


def size_of(hit: Hit | None) -> int | None:
    """Octets: a whole number with optional K, M or G."""
    found = _SIZE.fullmatch(hit.text) if hit is not None and not hit.failed else None
    return int(found[1]) * _SIZE_FACTOR[found[2].lower()] if found else None


def limit_of(hit: Hit | None) -> Limit | None:
    """``150/30m``, ``10/d`` or ``-1``. Without unit seconds are meant, without amount one."""
    if hit is None or hit.failed:
        return None
    if _NO_LIMIT.fullmatch(hit.text):
        return Limit(-1)
    found = _LIMIT.fullmatch(hit.text)
    if found is None:
        return None
    count = int(found[1])
    if count < 0:
        return Limit(-1)
    return Limit(count, max(int(found[2] or 1), 1), (found[3] or "s").lower())


def list_of(hit: Hit | None) -> tuple[str, ...] | None:
    """Elements between semicolons or commas, without empty ones; SKIP is not a list."""
    if hit is None or hit.failed or hit.text == "SKIP":
        return None
    return tuple(element for element in re.split("[;,]", hit.text) if element)
