"""Who must use TLS, and who is not offered it: the tags Tls-Connect:, Tls-From: and Tls-To:.

Looked up at connect, MAIL and RCPT; decided at RCPT, the most specific tag that has an entry. Source: spec chapters session, 14,
and maps, 14.
"""

from __future__ import annotations

import attrs

from smtpf.journal.message import err
from smtpf.maps.access import AccessMap, Hit
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject
from smtpf.reply import Reply
from smtpf.smtp.session import Recipient, Session, Transaction

NO_COMMON_NAME = err(
    1028,
    "no CN match: %s",
    "A VERIFY entry names who may send, and the client's certificate is valid for somebody else; the names it has are shown.",
    fields=("names",),
    since="later",
)
MUST_STARTTLS = Reply(1026, "530 5.7.0 Must issue a STARTTLS command first", meaning="A Tls- entry demands TLS for this mail.")
CERTIFICATE_INVALID = Reply(
    1027, "535 5.7.8 TLS certificate invalid", meaning="A Tls- entry demands a valid client certificate, and there is none."
)
CERTIFICATE_OF_ANOTHER = Reply(
    1029, "535 5.7.8 TLS certificate invalid", meaning="A Tls- entry names who may send, and the certificate is somebody else's."
)


@attrs.define
class _OfSender:
    demand: str = ""


class TlsPolicy(Filter):
    """Demands TLS, or a certificate, where the access map says so."""

    def __init__(self, access: AccessMap) -> None:
        self._access = access

    async def connect(self, session: Session) -> None:
        """Tls-Connect:, which also decides whether STARTTLS is offered."""
        hit = await self._access.lookup_client("tls-connect:", session.name, session.address, session.sid)
        if hit is not None:
            session.tls_connect = _demand(hit)

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Tls-From:"""
        return self._mail(session, transaction) if self._access.holds("tls-from:") else None

    async def _mail(self, session: Session, transaction: Transaction) -> None:
        hit = await self._access.lookup_mail("tls-from:", transaction.sender.address, session.sid)
        if hit is not None:
            transaction.own(_OfSender).demand = _demand(hit)

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> MaybeVerdict:
        """Tls-To:, and the decision."""
        of_sender = transaction.owned(_OfSender)
        demand = (of_sender.demand if of_sender else "") or session.tls_connect
        if not self._access.holds("tls-to:"):
            return self._judge(session, demand) if demand else None
        return self._rcpt(session, recipient, demand)

    async def _rcpt(self, session: Session, recipient: Recipient, demand: str) -> Verdict | None:
        """``demand`` is that of the sender or the client, for a recipient that has none of its own."""
        hit = await self._access.lookup_mail("tls-to:", recipient.path.address, session.sid)
        demand = (_demand(hit) if hit is not None else "") or demand
        return self._judge(session, demand) if demand else None

    def _judge(self, session: Session, demand: str) -> Verdict | None:
        word, _, parameter = demand.partition(":")
        if word not in ("REQUIRE", "VERIFY"):
            return None
        if session.tls is None:
            return reject(MUST_STARTTLS, fact=demand)
        if word == "REQUIRE":
            return None
        if session.tls.valid != "PASS":
            return reject(CERTIFICATE_INVALID, fact=demand)
        wanted = [name for name in parameter.partition(";")[0].removeprefix("CN=").split(",") if name.strip()]
        if wanted and not any(session.tls.matches(name) for name in wanted):
            session.log(NO_COMMON_NAME, ",".join(session.tls.names))
            return reject(CERTIFICATE_OF_ANOTHER, fact=demand)
        return None


def _demand(hit: Hit) -> str:
    """The entry's action when it is one of these tags', else nothing."""
    if hit.word in ("SKIP", "REQUIRE", "VERIFY"):
        return f"{hit.word}:{hit.parameter}" if hit.parameter else hit.word
    return ""
