"""Senders at the large free mail providers must come from the provider's own hosts.

A built-in table says which host names belong to which sender domains. Source: spec chapter filters-envelope, 13.8.
"""

from __future__ import annotations

import attrs

from smtpf.dns.domains import Domains
from smtpf.pipeline import Filter, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import ClientFlag, Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

MAIL_STRICT = Flag(
    "mail-strict",
    False,
    "A sender at one of the large free mail providers must come from a host of that provider, known by its confirmed name.",
    since="later",
    area="mail",
)
MUST_BE_SENT_FROM = Reply(
    921,
    "550 5.7.0 client %s [%s] sender <%s> must be sent from %s",
    meaning="mail-strict: the sender's address belongs to a free mail provider and the client does not.",
)
STRICT_FAIL = Counter("mail-strict-fail", Group.MAIL, "Senders of free mail providers that came from elsewhere.", since="later")


@attrs.frozen
class Row:
    """Sender domains of one provider, and the host names it sends from."""

    senders: tuple[str, ...]
    hosts: tuple[str, ...]


PROVIDERS = (
    Row(("aim.*", "aol.*"), ("*.aol.*",)),
    Row(("gmail.*", "googlemail.*", "googlegroups.*"), ("*.google.*",)),
    Row(("hotmail.*", "live.*", "msn.*", "outlook.*"), ("*.hotmail.*", "*.live.*", "*.outlook.com")),
    Row(("yahoo.*", "ymail.com", "rocketmail.com", "*groups.yahoo.com"), ("*.yahoo.*",)),
)
"""``*`` in front is any text; ``.*`` at the end is exactly one public suffix."""


class MailStrict(Filter):
    """Compares the sender's provider with the client's name."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        if not session.settings[MAIL_STRICT] or session.usual_suspect or ClientFlag.SECOND_MX in session.flags:
            return None
        sender = transaction.sender
        rows = [row for row in PROVIDERS if any(self._matches(sender.domain, each) for each in row.senders)]
        if not rows:
            return None
        confirmed = ClientFlag.FORGED not in session.flags
        if confirmed and any(self._matches(session.name, each) for row in rows for each in row.hosts):
            return None
        session.count(STRICT_FAIL)
        return reject(MUST_BE_SENT_FROM, session.name, session.address, sender.address, sender.domain)

    def _matches(self, name: str, pattern: str) -> bool:
        """``name``, in lower case, fits ``pattern`` of the table."""
        if pattern.endswith(".*"):
            suffix = self._domains.suffix(name)
            if suffix is None or name == suffix:
                return False
            name, pattern = name[: -len(suffix) - 1], pattern[:-2]
        if pattern.startswith("*"):
            return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
        return name == pattern
