"""The domain lists for links, asked about names that are known before any message: of the client, of HELO, of the sender.

Three switches, off by default. Independent of them the name servers of the client's name are looked up in ns-bl and ns-a-bl when
these lists are set. Known clients are not tested. Source: spec chapters filters-envelope, 12; session, 4.3.
"""

from __future__ import annotations

from smtpf.dns.domains import is_address
from smtpf.filters.postponing import AUTH_DELAY_CHECKS
from smtpf.filters.uri_lists import URI_SUB_DOMAINS, WHITE_ELSEWHERE, Found, UriLists, listed_text, policy, tell
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, drop
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import Session, Transaction
from smtpf.stats.counter import Counter, Group

URI_BL_PTR = Flag("uri-bl-ptr", False, "Look the client's name up as if it were the host of a link.", area="uri")
URI_BL_HELO = Flag("uri-bl-helo", False, "Look the HELO argument up as if it were the host of a link.", area="uri")
URI_BL_MAIL = Flag("uri-bl-mail", False, "Look the sender's domain up as if it were the host of a link.", area="uri")

PTR_REFUSED = Reply(790, "550 5.7.1 rejected client %s [%s], %s", meaning="uri-bl-ptr: the client's name is listed.")
PTR_NS_REFUSED = Reply(790, "550 5.7.1 rejected PTR NS, %s", meaning="A name server of the client's name is listed in ns-bl or ns-a-bl.")
HELO_REFUSED = Reply(792, "550 5.7.1 rejected HELO, %s", meaning="uri-bl-helo: the HELO argument is listed.")
MAIL_REFUSED = Reply(794, "550 5.7.1 rejected MAIL FROM, %s", meaning="uri-bl-mail: the sender's domain is listed.")
MAIL_NS_REFUSED = Reply(
    900, "550 5.7.1 rejected MAIL NS, %s", meaning="A name server of the sender's domain is listed in ns-bl or ns-a-bl."
)

PTR_HIT = Counter("uri-bl-ptr", Group.CONNECT, "Clients whose name is listed.")
PTR_NS_HIT = Counter("ns-bl-ptr", Group.CONNECT, "Clients whose name has a listed name server.", since="later")
HELO_HIT = Counter("uri-bl-helo", Group.CONNECT, "HELO arguments that are listed.")
MAIL_HIT = Counter("uri-bl-mail", Group.MAIL, "Senders whose domain is listed.")
MAIL_NS_HIT = Counter("ns-bl-mail", Group.MAIL, "Senders whose domain has a listed name server.", since="later")


class UriEnvelope(Filter):
    """Judges names of the envelope by the lists for links."""

    def __init__(self, lists: UriLists) -> None:
        self._lists = lists

    # The client's name

    def connect(self, session: Session) -> MaybeVerdict:
        """At once, unless the client shall have time to authenticate."""
        return None if session.settings[AUTH_DELAY_CHECKS] else self._client(session)

    def postponed_client(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The same at MAIL."""
        return self._client(session) if session.settings[AUTH_DELAY_CHECKS] and not session.auth else None

    def _client(self, session: Session) -> MaybeVerdict:
        if not session.name or session.usual_suspect or session.grey:
            return None
        by_name = session.settings[URI_BL_PTR]
        if not by_name and not self._lists.any_of_servers:
            return None
        return self._judge_client(session, by_name)

    async def _judge_client(self, session: Session, by_name: bool) -> Verdict | None:
        why = await self._name(session, session.name) if by_name else ""
        if why:
            session.count(PTR_HIT)
            return drop(PTR_REFUSED, session.name, session.address, why, delay=True, whole_session=True, fact=session.name)
        why = await self._servers(session, session.name)
        if why:
            session.count(PTR_NS_HIT)
            return drop(PTR_NS_REFUSED, why, delay=True, whole_session=True, fact=session.name)
        return None

    # HELO

    def helo(self, session: Session) -> MaybeVerdict:
        """At once, unless the client shall have time to authenticate."""
        return None if session.settings[AUTH_DELAY_CHECKS] else self._helo(session)

    def postponed_helo(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The same at MAIL."""
        return self._helo(session) if session.settings[AUTH_DELAY_CHECKS] and not session.auth else None

    def _helo(self, session: Session) -> MaybeVerdict:
        if not session.settings[URI_BL_HELO] or session.usual_suspect or session.grey:
            return None
        return self._judge_helo(session)

    async def _judge_helo(self, session: Session) -> Verdict | None:
        why = await self._name(session, _bare(session.helo))
        if not why:
            return None
        session.count(HELO_HIT)
        return drop(HELO_REFUSED, why, delay=True, whole_session=True, fact=session.helo)

    # The sender

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The sender's domain."""
        if not session.settings[URI_BL_MAIL] or not transaction.sender.domain or session.usual_suspect or session.grey:
            return None
        return self._judge_sender(session, _bare(transaction.sender.domain))

    async def _judge_sender(self, session: Session, domain: str) -> Verdict | None:
        why = await self._name(session, domain)
        if why:
            session.count(MAIL_HIT)
            return drop(MAIL_REFUSED, why, delay=True, fact=domain)
        why = await self._servers(session, domain)
        if why:
            session.count(MAIL_NS_HIT)
            return drop(MAIL_NS_REFUSED, why, delay=True, fact=domain)
        return None

    # Names

    async def _name(self, session: Session, name: str) -> str:
        """Why ``name`` is refused, or nothing."""
        lists, settings = self._lists, session.settings
        if not lists.domains.testable(name):
            return ""
        word = await lists.body(session, name, "", WHITE_ELSEWHERE)
        if word is not None:
            return word.refuses
        if policy(settings) == "n":
            return ""
        return _why(session, name, await lists.host(name, settings[URI_SUB_DOMAINS]))

    async def _servers(self, session: Session, name: str) -> str:
        """Why the name servers of ``name`` are refused, or nothing."""
        if policy(session.settings) == "n" or is_address(name):
            return ""
        return _why(session, name, await self._lists.name_servers(name))


def _why(session: Session, name: str, found: Found | None) -> str:
    if found is None:
        return ""
    tell(session, found)
    return listed_text(session.settings, name, found)


def _bare(name: str) -> str:
    """A host name in lower case without final dot, or the address in an address literal."""
    inner = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    return (inner[5:] if inner[:5].lower() == "ipv6:" else inner).lower().rstrip(".")
