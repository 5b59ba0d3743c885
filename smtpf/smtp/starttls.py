"""STARTTLS towards the client. Source: RFC 3207; spec chapter session, 14; security rows E and L1.

Nothing said in the clear behind STARTTLS is ever carried out: octets that wait behind the command end the session, and after the
handshake the session begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, TimeoutError

from smtpf.journal.message import err, info
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Answer, Reply
from smtpf.smtp import replies
from smtpf.smtp.forward import SMTP_CONNECT_TIMEOUT
from smtpf.smtp.session import ClientFlag, Session, State
from smtpf.smtp.tls import TlsFacts, facts
from smtpf.smtp.wire import Disconnected
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

NEGOTIATION = err(
    1021, "TLS negotiation %s", "The TLS handshake with the client failed, or took too long.", fields=("error",), since="later"
)
STARTED = info(
    1023,
    "started %s",
    "TLS with the client has begun: version, cipher, strength, client certificate.",
    word="tls",
    fields=("cipher",),
    since="later",
)
ISSUER = info(1024, "issuer=%s", "Issuer of the client's certificate.", word="tls", fields=("issuer",), since="later")
SUBJECT = info(1025, "subject=%s", "Subject of the client's certificate.", word="tls", fields=("subject",), since="later")
READY = Answer(("220 ready to start TLS",))
NEGOTIATION_FAILED = Reply(1022, "550 5.7.5 TLS negotiation failed", meaning="The handshake could not be begun.")
TLS_ERROR = Counter("tls-error", Group.CONNECT, "TLS handshakes with clients that failed.", since="later")
TLS_PASS = Counter("tls-pass", Group.CONNECT, "Clients with a valid certificate.", since="later")
TLS_FAIL = Counter("tls-fail", Group.CONNECT, "Clients with a certificate that is not valid.", since="later")
TLS_NONE = Counter("tls-none", Group.CONNECT, "Clients in TLS without a certificate.", since="later")
_BY_RESULT = {"PASS": TLS_PASS, "FAIL": TLS_FAIL, "NONE": TLS_NONE}
_OF_HELO = (ClientFlag.HELO_IP, ClientFlag.HELO_HOST, ClientFlag.EHLO_NO_HELO, ClientFlag.SCHIZO)


def offered(talk: Conversation) -> bool:
    """STARTTLS stands in the EHLO reply: a certificate is configured, TLS has not begun, and no entry says SKIP."""
    session, tls = talk.session, talk.engine.tls
    return tls is not None and tls.offered and session.tls is None and session.tls_connect != "SKIP"


def demanded(session: Session) -> bool:
    """Tls-Connect: asks for TLS, so that EHLO must be possible."""
    return session.tls_connect.partition(":")[0] in ("REQUIRE", "VERIFY")


async def starttls(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """STARTTLS: the handshake, then a session that has forgotten everything said before."""
    session = talk.session
    if session.tls is not None:
        return Verdict(Code.CONTINUE, replies.OUT_OF_SEQUENCE, ("STARTTLS",))
    if not offered(talk):
        return Verdict(Code.CONTINUE, replies.NOT_IMPLEMENTED, ("STARTTLS",))
    if argument:
        return Verdict(Code.CONTINUE, replies.TLS_ARGUMENT)
    await talk.end_transaction()
    if talk.wire.pending:
        talk.note_injection()
        talk.ending = True
        return Verdict(Code.REJECT, replies.PIPELINING_NOT_ALLOWED)
    await _handshake(talk)
    talk.forget_authentication()
    return None


async def _handshake(talk: Conversation) -> None:
    """220, the handshake within smtp-connect-timeout, and the facts of it. Raises Disconnected when it fails."""
    session, wire, tls = talk.session, talk.wire, talk.engine.tls
    assert tls is not None
    done: Deferred[None] = Deferred()
    wire.handshake = done
    wire.write(READY.encode())
    wire.start_tls(tls.server())
    done.addTimeout(session.settings[SMTP_CONNECT_TIMEOUT], talk.engine.reactor)
    try:
        await done
    except (Disconnected, TimeoutError) as failed:
        session.log(NEGOTIATION, str(failed) or "timeout")
        session.count(TLS_ERROR)
        wire.abort()
        raise Disconnected("TLS negotiation failed") from failed
    _begin_anew(session, facts(wire.transport))
    wire.forget()


def _begin_anew(session: Session, found: TlsFacts) -> None:
    session.tls = found
    session.count(_BY_RESULT[found.valid])
    session.log(STARTED, found.text)
    if found.issuer:
        session.log(ISSUER, found.issuer)
        session.log(SUBJECT, found.subject)
    session.state = State.CONN
    session.helo = ""
    session.esmtp = session.said_ehlo = False
    session.flags.difference_update(_OF_HELO)
