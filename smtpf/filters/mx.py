"""The sender's mail exchanges: can the sender get an answer at all, and is the client one of them?

At RCPT the same question about our own domains: a client that is an MX of the recipient's domain is our own secondary, and
must not be punished for the mail that it passes on. Source: RFC 5321 5.1, RFC 7505; spec chapters filters-envelope, 9.3,
9.4 and 13.7; session, 5.5 and 5.6.
"""

from __future__ import annotations

from smtpf.dns.answer import Answer, Status
from smtpf.dns.domains import is_address
from smtpf.dns.mx import MxList, mx_list
from smtpf.dns.resolver import Resolver
from smtpf.journal.message import err, info, warn
from smtpf.maps.routes import RouteMap
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject, tempfail
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import ClientFlag, Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

MAIL_REQUIRE_MX = Flag(
    "mail-require-mx",
    True,
    "Refuse a sender whose domain has no mail exchange that can be reached, for no answer would ever arrive there.",
    area="mail",
    aliases=("require-sender-mx",),
)

MX_ERROR = err(
    435,
    "MX %s error %s",
    "The mail exchanges of a sender's domain could not be found; the code is the DNS server's. With mail-require-mx the sender "
    "is told to come again, unless the code says that the server cannot answer such questions at all.",
    fields=("domain", "error"),
)
NO_MX_ANSWER = err(
    446,
    "MX %s lookup: %s (%d)",
    "No DNS server answered when the mail exchanges of a sender's domain were asked for. Check the DNS servers if it happens often.",
    fields=("domain", "error", "errno"),
)
IS_MX = info(
    437,
    "%s [%s] is MX for %s",
    "The client is one of the mail exchanges of the sender's domain.",
    fields=("client", "address", "domain"),
)
IS_IMPLICIT_MX = info(
    448,
    "client %s [%s] is MX for %s",
    "The sender's domain has no MX record, and the client has the domain's own address.",
    fields=("client", "address", "domain"),
)
NOTHING_LEFT = warn(
    438,
    "empty MX list after pruning",
    "The sender's domain names mail exchanges, but none with an address that can be reached from outside. The sender was refused.",
)
NO_ADDRESS = warn(
    444,
    "empty MX list after pruning",
    "The sender's domain has neither MX records nor an address that can be reached from outside. The sender was refused.",
)
INCOMPLETE = warn(
    906,
    "MX list incomplete...",
    "The addresses of the sender's mail exchanges could not be looked up. The sender was told to come again.",
    since="later",
)
SECOND_MX_ERROR = err(
    453,
    "MX %s lookup: %s (%d)",
    "The mail exchanges of one of our own domains could not be found, so a secondary MX is not recognised. Check that domain's DNS.",
    fields=("domain", "error", "code"),
)

NO_MX = Reply(434, "553 5.1.8 sender <%s> from %s has no MX record", meaning="The sender's domain does not exist.")
MX_LOOKUP_ERROR = Reply(
    436, "451 4.4.3 sender <%s> from %s MX lookup error", meaning="The DNS did not say where mail for the sender's domain goes."
)
MX_INVALID = Reply(
    439, "553 5.1.8 sender <%s> from %s MX invalid", meaning="No mail exchange of the sender's domain can be reached from outside."
)
MX_INCOMPLETE = Reply(
    907,
    "451 4.1.8 sender <%s> from %s MX lookup error",
    meaning="The addresses of the mail exchanges of the sender's domain could not be looked up.",
)

CLIENT_IS_MX = Counter("client-is-mx", Group.MAIL, "Senders whose client is a mail exchange of their domain.")
REQUIRE_MX = Counter("mail-require-mx", Group.MAIL, "Senders in domains that do not exist.")
REQUIRE_MX_ERROR = Counter("mail-require-mx-error", Group.MAIL, "Senders in domains whose mail exchanges could not be looked up.")
CLIENT_IS_SECOND_MX = Counter("client-is-2nd-mx", Group.CONNECT, "Sessions of clients that are a mail exchange of a recipient's domain.")

MAX_REMEMBERED = 100
"""Recipient domains kept in one session."""


class _AskedDomains(set[str]):
    """Recipient domains of a session that have been asked about."""


class Mx(Filter):
    """Looks mail exchanges up, for the sender and for the recipient."""

    def __init__(self, resolver: Resolver, routes: RouteMap) -> None:
        self._resolver = resolver
        self._routes = routes

    # MAIL

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if session.trusted:
            return None
        sender = transaction.sender
        domain = session.helo if sender.is_null else sender.domain
        if not domain or is_address(domain):
            return None
        return self._sender(session, transaction, domain)

    async def _sender(self, session: Session, transaction: Transaction, domain: str) -> Verdict | None:
        null = transaction.sender.is_null
        if not null and await self._routes.is_ours(domain):
            return None
        required = session.settings[MAIL_REQUIRE_MX] and not null
        found = await mx_list(self._resolver, domain)
        if found.failed or found.nxdomain:
            return self._no_list(session, transaction, domain, found.answer, required=required)
        if found.preference_of(session.address) is not None:
            session.log(IS_IMPLICIT_MX if found.implicit else IS_MX, session.name, session.address, domain)
            session.flags.add(ClientFlag.MX)
            session.count(CLIENT_IS_MX)
        if not required or found.usable:
            return None
        return _unusable(session, transaction, domain, found)

    def _no_list(self, session: Session, transaction: Transaction, domain: str, answer: Answer, *, required: bool) -> Verdict | None:
        """The MX query gave an error."""
        sender = transaction.sender.address
        if answer.status is Status.NXDOMAIN and required:
            session.count(REQUIRE_MX)
            return reject(NO_MX, sender, domain, delay=True, fact=f"MX {domain} NXDOMAIN")
        if answer.no_answer:
            session.log(NO_MX_ANSWER, domain, answer.error_text, answer.errno)
        else:
            session.log(MX_ERROR, domain, answer.rcode_text)
        if not required or answer.status is Status.NOTIMP:
            return None
        session.count(REQUIRE_MX_ERROR)
        return tempfail(MX_LOOKUP_ERROR, sender, domain, delay=True, fact=f"MX {domain} {answer.rcode_text}")

    # RCPT

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> MaybeVerdict:
        """Is the client a secondary MX of ours? Decides nothing."""
        route, domain = recipient.route, recipient.path.domain
        if route is None or not route.forward or not domain or recipient.path.literal or ClientFlag.SECOND_MX in session.flags:
            return None
        asked = session.own(_AskedDomains)
        if domain in asked or len(asked) >= MAX_REMEMBERED:
            return None
        asked.add(domain)
        return self._recipient(session, domain)

    async def _recipient(self, session: Session, domain: str) -> None:
        found = await mx_list(self._resolver, domain)
        if found.failed:
            answer = found.answer
            session.log(SECOND_MX_ERROR, domain, answer.error_text, answer.errno or answer.rcode)
        elif found.lists(session.address):
            session.flags.add(ClientFlag.SECOND_MX)
            session.count(CLIENT_IS_SECOND_MX)


def _unusable(session: Session, transaction: Transaction, domain: str, found: MxList) -> Verdict:
    """The domain has no mail exchange left: for now, or for good."""
    sender = transaction.sender.address
    if found.incomplete:
        session.log(INCOMPLETE)
        return tempfail(MX_INCOMPLETE, sender, domain, delay=True, fact=f"MX {domain} incomplete")
    session.log(NO_ADDRESS if found.implicit else NOTHING_LEFT)
    return reject(MX_INVALID, sender, domain, delay=True, fact=f"MX {domain} pruned")
