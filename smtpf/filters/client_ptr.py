"""Refuse clients without a reverse name, or with one that looks generated from their address.

Both tests are hints about machines that should not send mail themselves. With ``auth-delay-checks`` or ``client-is-mx`` they
wait until MAIL, when the client may have authenticated, or turns out to speak for the sender's domain. Source: spec chapter
filters-envelope, 6.
"""

from __future__ import annotations

from smtpf.filters.postponing import AUTH_DELAY_CHECKS, CLIENT_IS_MX
from smtpf.pipeline import Filter, Verdict, drop, tempfail
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import ClientFlag, Session, SpfResult, Transaction
from smtpf.stats.counter import Counter, Group

CLIENT_PTR_REQUIRED = Flag("client-ptr-required", False, "Refuse clients that have no reverse name.", area="client")
CLIENT_IP_IN_PTR = Flag(
    "client-ip-in-ptr", False, "Refuse clients whose reverse name looks generated from their IP address.", area="client"
)

PTR_ERROR = Reply(
    415,
    "421 4.4.3 PTR record lookup error for [%s]",
    meaning="client-ptr-required: the client's reverse name could not be looked up. The client may try again.",
)
PTR_MISSING = Reply(416, "554 5.7.1 reject [%s] missing PTR record", meaning="client-ptr-required: the client has no reverse name.")
IP_IN_PTR = Reply(
    418,
    "550 5.7.1 reject IP in client name %s [%s] (1)",
    meaning="client-ip-in-ptr: the client's reverse name looks like that of a dynamic address.",
)
CLIENT_IP_IN_PTR_HIT = Counter("client-ip-in-ptr", Group.CONNECT, "Clients refused by client-ip-in-ptr.")


class ClientPtr(Filter):
    """Judges the client by its reverse name."""

    def connect(self, session: Session) -> Verdict | None:
        """At once, unless an option postpones it."""
        settings = session.settings
        if settings[AUTH_DELAY_CHECKS] or settings[CLIENT_IS_MX]:
            return None
        return _judge(session)

    def mail(self, session: Session, transaction: Transaction) -> Verdict | None:
        """Postponed: a client that the sender's domain vouches for passes."""
        settings = session.settings
        if not (settings[AUTH_DELAY_CHECKS] or settings[CLIENT_IS_MX]) or session.auth or transaction.spf_mail is SpfResult.PASS:
            return None
        return _judge(session)


def _judge(session: Session) -> Verdict | None:
    flags = session.flags
    if session.usual_suspect or session.grey or ClientFlag.MX in flags:
        return None
    settings = session.settings
    if settings[CLIENT_PTR_REQUIRED] and ClientFlag.NO_PTR in flags:
        if ClientFlag.NO_PTR_ERROR in flags:
            return tempfail(PTR_ERROR, session.address, delay=True, whole_session=True, fact="PTR lookup error")
        return drop(PTR_MISSING, session.address, delay=True, whole_session=True, fact="no PTR")
    if settings[CLIENT_IP_IN_PTR] and ClientFlag.IP_IN_PTR in flags:
        session.count(CLIENT_IP_IN_PTR_HIT)
        return drop(IP_IN_PTR, session.name, session.address, delay=True, whole_session=True, fact=session.name)
    return None
