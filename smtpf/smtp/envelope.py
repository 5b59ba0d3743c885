"""MAIL FROM, RCPT TO and ETRN: the envelope. A recipient's next hop is opened, and its answer heard, when it is named.

Source: RFC 5321 4.1.1.2, 4.1.1.3, RFC 1985; spec chapter session, 3.5, 3.6 and 6; maps, 20 and 21.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from smtpf.journal.message import err, info, warn
from smtpf.maps.routes import Route
from smtpf.maps.source import LookupFailed
from smtpf.pipeline import Code, Stage, Verdict
from smtpf.reply import Answer
from smtpf.smtp import counters, replies, summary, utf8
from smtpf.smtp import options as opt
from smtpf.smtp.forward import ForwardConnection
from smtpf.smtp.grammar import (
    EXTRA_SPACES,
    Argument,
    ArgumentFault,
    Path,
    PathError,
    PathRules,
    Role,
    parse_mail_argument,
    parse_path,
    parse_rcpt_argument,
)
from smtpf.smtp.idle import idle
from smtpf.smtp.session import ClientFlag, MailFlag, MsgFlag, RcptFlag, Recipient, Session, State, Transaction
from smtpf.stats.counter import Counter

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

UNEXPECTED_MAIL = warn(281, "filter_mail_table unexpected rc=%d", "A filter gave a verdict that has no meaning at MAIL. It was ignored.")
UNEXPECTED_RCPT = warn(291, "filter_rcpt_table unexpected rc=%d", "A filter gave a verdict that has no meaning at RCPT. It was ignored.")
QUEUING = info(
    294,
    "queuing message on %s [%s] for <%s>",
    "Outbound mail is handed to a host of the local route.",
    fields=("host", "address", "recipient"),
)
LOCAL_ROUTE_REQUIRED = err(
    566, "localhost route required", "Mail needs the local route and the route map has none. Add route:local or route:127.0.0.1."
)
LOCAL_ROUTE_FORWARD = err(
    567, "localhost route requires FORWARD definition", "The local route names no host to queue mail on. Give its entry a FORWARD: list."
)
MAIL_LOOP = err(
    568, "mail loop from %s [%s] in localhost route", "The host that queues our outbound mail sent this mail itself: it would go round.",
    fields=("client", "address"),
)  # fmt: skip
STRICT_RELAY = info(
    570, "smtp-strict-relay client %s [%s] sender <%s> denied", "A relay client used a sender domain that is not routed here.", always=True,
    fields=("client", "address", "sender"),
)  # fmt: skip

MAX_RECIPIENTS = 1000
"""Recipients of one transaction, refused ones counted (RFC 5321 4.5.3.1.8 asks for 100)."""
_KNOWN_PARAMETERS = frozenset({"BODY", "SIZE", "AUTH"})
_KNOWN_WITH_UTF8 = _KNOWN_PARAMETERS | {utf8.KEYWORD}
_BODIES = frozenset({"7BIT", "8BITMIME", "BINARYMIME"})
_GOING_ON = frozenset({Code.CONTINUE, Code.ACCEPT, Code.GREY, Code.DISCARD})


# MAIL


async def mail(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """MAIL FROM: begins a transaction."""
    session = talk.session
    await talk.end_transaction()
    refused = await idle(talk)
    if refused is not None:
        return refused
    session.mail_count += 1
    session.count(counters.MAIL)
    session.flags.discard(ClientFlag.MX)
    parsed = parse_mail_argument(argument)
    if parsed is ArgumentFault.MISSING:
        return Verdict(Code.CONTINUE, replies.MISSING_ARGUMENT, (line,))
    if not isinstance(parsed, Argument):
        session.count(counters.MAIL_PARSE)
        return Verdict(Code.REJECT, replies.MAIL_SYNTAX)
    wide = utf8.KEYWORD in parsed.parameters and utf8.offered(session)
    sender = parse_path(parsed.path, Role.SENDER, PathRules.of(session.settings, wide))
    tid = talk.tids.next(talk.engine.now())
    if isinstance(sender, PathError):
        session.count(counters.MAIL_PARSE)
        transaction = Transaction(tid, _as_written(sender))
        verdict = Verdict(Code.REJECT, replies.SENDER_SYNTAX, (sender.code, sender.error, sender.path))
    else:
        transaction = Transaction(tid, sender)
        talk.begin_transaction(transaction)
        talk.answering = (transaction, None)
        verdict = await _sender_verdict(talk, transaction, parsed)
    if verdict.reply is not replies.SENDER_ACCEPTED:
        summary.sender(session, transaction, talk.rendered(verdict))
        await talk.end_transaction()
        return verdict
    session.state = State.MAIL
    await talk.respond(verdict, partial(summary.sender, session, transaction))
    return None


async def _sender_verdict(talk: Conversation, transaction: Transaction, parsed: Argument) -> Verdict:
    """Everything between a well-formed sender and the reply to MAIL."""
    session = talk.session
    sender = transaction.sender
    if not talk.first_sender_domain:
        talk.first_sender_domain = sender.domain
    elif session.settings[opt.ONE_DOMAIN_PER_SESSION] and sender.domain not in ("", talk.first_sender_domain) and not session.usual_suspect:
        session.count(counters.ONE_DOMAIN)
        return Verdict(Code.REJECT, replies.MORE_THAN_ONE_DOMAIN, (sender.address, talk.first_sender_domain))
    if parsed.extra_spaces:
        transaction.mail_flags.add(MailFlag.EXTRA_SPACES)
        if _spaces_forbidden(session):
            session.count(counters.MAIL_PARSE)
            return Verdict(Code.REJECT, replies.MAIL_SYNTAX)
    if sender.is_null:
        session.count(counters.NULL_SENDER)
    transaction.parameters = parsed.parameters
    known = _KNOWN_WITH_UTF8 if utf8.offered(session) else _KNOWN_PARAMETERS
    if session.esmtp and not known.issuperset(parsed.parameters):
        return Verdict(Code.REJECT, replies.BAD_PARAMETERS_MAIL)
    body = parsed.parameters.get("BODY", "7BIT").upper()
    if body not in _BODIES:
        return Verdict(Code.REJECT, replies.BAD_PARAMETERS_MAIL)
    if body == "8BITMIME":
        transaction.mail_flags.add(MailFlag.EIGHT_BIT_MIME)
    elif body == "BINARYMIME":
        transaction.mail_flags.add(MailFlag.BINARY_MIME)
    verdict = await talk.engine.pipeline.run(Stage.MAIL, session, transaction)
    session.slots.immediate = None
    if verdict.negative:
        _count(session, verdict, counters.MAIL_DROP, counters.MAIL_REJECT, counters.MAIL_TEMPFAIL)
        return verdict
    if verdict.code not in _GOING_ON:
        session.log(UNEXPECTED_MAIL, verdict.code)
    if talk.queue is not None:
        return await _mail_on_queue(talk, transaction)
    return Verdict(Code.CONTINUE, replies.SENDER_ACCEPTED, (sender.address,))


async def _mail_on_queue(talk: Conversation, transaction: Transaction) -> Verdict:
    """The connection that queues an authenticated client's mail hears of the sender at once."""
    assert talk.queue is not None
    answer = await talk.queue.mail(transaction)
    if answer.positive:
        return Verdict(Code.CONTINUE, replies.SENDER_ACCEPTED, (transaction.sender.address,))
    permanent = answer.code >= 500
    talk.session.count(counters.MAIL_REJECT if permanent else counters.MAIL_TEMPFAIL)
    code = answer.code or 451
    return Verdict(
        Code.REJECT if permanent else Code.TEMPFAIL, replies.QUEUE_REFUSED_SENDER, (code, code // 100, transaction.sender.address)
    )


# RCPT


async def rcpt(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """RCPT TO: one recipient more."""
    session = talk.session
    transaction = session.transaction
    assert transaction is not None
    session.count(counters.RCPT)
    parsed = parse_rcpt_argument(argument)
    if parsed is ArgumentFault.MISSING:
        return Verdict(Code.CONTINUE, replies.MISSING_ARGUMENT, (line,))
    if not isinstance(parsed, Argument):
        session.count(counters.RCPT_PARSE)
        return Verdict(Code.REJECT, replies.RCPT_SYNTAX)
    path = parse_path(parsed.path, Role.RECIPIENT, PathRules.of(session.settings, utf8.asked(transaction)))
    if isinstance(path, PathError):
        recipient = Recipient(_as_written(path))
        recipient.flags.add(RcptFlag.FAILED)
        session.count(counters.RCPT_PARSE)
        verdict = Verdict(Code.REJECT, replies.RECIPIENT_SYNTAX, (path.code, path.error, path.path))
    else:
        recipient = Recipient(path)
        talk.answering = (transaction, recipient)
        recipient.parameters = parsed.parameters
        if parsed.extra_spaces:
            recipient.flags.add(RcptFlag.EXTRA_SPACES)
        verdict = await _recipient_verdict(talk, transaction, recipient)
        if verdict.negative and verdict.reply not in (replies.RCPT_SYNTAX, replies.CANNOT_FORWARD) and verdict.code is Code.REJECT:
            session.count(counters.RCPT_REJECT)
    if verdict.reply is not replies.RECIPIENT_ACCEPTED and verdict.reply is not replies.RECIPIENT_DISCARDED:
        transaction.refused_recipients += 1
        summary.recipient(session, transaction, recipient, talk.rendered(verdict))
        return verdict
    transaction.recipients.append(recipient)
    session.state = State.RCPT
    await talk.respond(verdict, partial(summary.recipient, session, transaction, recipient))
    return None


async def _recipient_verdict(talk: Conversation, transaction: Transaction, recipient: Recipient) -> Verdict:
    """Everything between a well-formed recipient and the reply to RCPT."""
    session = talk.session
    path = recipient.path
    if transaction.accepted_count + transaction.refused_recipients >= MAX_RECIPIENTS:
        recipient.flags.add(RcptFlag.FAILED)
        return Verdict(Code.TEMPFAIL, replies.TOO_MANY_RECIPIENTS)
    if session.esmtp and recipient.parameters:
        return Verdict(Code.REJECT, replies.BAD_PARAMETERS_RCPT)
    if RcptFlag.EXTRA_SPACES in recipient.flags and _spaces_forbidden(session):
        session.count(counters.RCPT_PARSE)
        recipient.flags.add(RcptFlag.FAILED)
        return Verdict(Code.REJECT, replies.RCPT_SYNTAX)
    if path.is_null:
        return Verdict(Code.REJECT, replies.NULL_RECIPIENT)
    await talk.engine.pipeline.run(Stage.ADDRESS, session, transaction, recipient)
    route = await _route(talk, transaction, recipient.path)
    if isinstance(route, Verdict):
        return route
    recipient.route = route
    verdict = await talk.engine.pipeline.run(Stage.RCPT, session, transaction, recipient)
    session.slots.immediate = None
    if verdict.code is Code.DISCARD:
        recipient.discarded = True
        return Verdict(Code.CONTINUE, replies.RECIPIENT_DISCARDED, (recipient.path.address,))
    if verdict.negative:
        _count(session, verdict, counters.RCPT_DROP, None, counters.RCPT_TEMPFAIL)
        if verdict.code is Code.TEMPFAIL:
            recipient.flags.add(RcptFlag.FAILED)
        return verdict
    if verdict.code not in _GOING_ON:
        session.log(UNEXPECTED_RCPT, verdict.code)
    white = verdict.code in (Code.ACCEPT, Code.GREY)
    refusing = session.slots.refusing
    if refusing is not None and not white:
        return _reported(refusing)
    return await _forward(talk, transaction, recipient)


def _reported(delayed: Verdict) -> Verdict:
    """A delayed refusal as the answer to one recipient: a drop does not close, so that others can be tried."""
    code = Code.REJECT if delayed.code is Code.DROP else delayed.code
    return Verdict(code, delayed.reply, delayed.args, filter=delayed.filter, stage=delayed.stage, fact=delayed.fact)


async def _route(talk: Conversation, transaction: Transaction, path: Path) -> Route | Verdict | None:
    """The recipient's route; None when only the local route remains; a verdict when it may not be sent to."""
    session, routes = talk.session, talk.engine.routes
    found = await routes.for_recipient(path.address)
    if isinstance(found, LookupFailed):
        session.count(counters.RCPT_TEMPFAIL)
        return Verdict(Code.TEMPFAIL, replies.CANNOT_FORWARD, (path.address,))
    if found is not None:
        return found
    denied = Verdict(Code.REJECT, replies.RELAYING_DENIED, (path.address,), fact="no route")
    if not (session.relay or session.auth) and path.qualified:
        session.count(counters.RCPT_RELAY_DENIED)
        return denied
    sender = transaction.sender
    strict = session.settings[opt.SMTP_STRICT_RELAY] and session.relay and not sender.is_null
    if strict and not await routes.is_ours(sender.domain):
        session.log(STRICT_RELAY, session.name, session.address, sender.address)
        session.count(counters.RCPT_RELAY_DENIED)
        return denied
    return None


async def _forward(talk: Conversation, transaction: Transaction, recipient: Recipient) -> Verdict:
    """Call-ahead, the forward connection, and the next hop's answer to RCPT."""
    session, path, route = talk.session, recipient.path, recipient.route
    if route is not None and route.rcpt and path.qualified and path.address.isascii() and talk.engine.call_ahead is not None:
        known = await talk.engine.call_ahead.verify(session, transaction.sender, path, route)
        if not known:
            session.count(counters.RCPT_UNKNOWN)
            recipient.flags.add(RcptFlag.FAILED)
            return Verdict(Code.REJECT, replies.RECIPIENT_UNKNOWN, (path.address,))
    forward = await _attach(talk, transaction, recipient)
    if isinstance(forward, Verdict):
        if forward.reply is replies.CANNOT_FORWARD:
            session.count(counters.RCPT_TEMPFAIL)
            recipient.flags.add(RcptFlag.FAILED)
        return forward
    refusal = await forward.rcpt(path)
    if refusal is not None:
        recipient.flags.add(RcptFlag.FAILED)
        if not forward.recipients and not forward.connected and forward is not talk.queue:
            talk.forwards.remove(forward)
        return refusal
    recipient.forward = forward
    return Verdict(Code.CONTINUE, replies.RECIPIENT_ACCEPTED, (path.address,))


async def _attach(talk: Conversation, transaction: Transaction, recipient: Recipient) -> ForwardConnection | Verdict:
    """The forward connection that carries this recipient, open and with the sender told (6.2, 6.4)."""
    session, path, engine = talk.session, recipient.path, talk.engine
    queued = session.relay or session.auth or not path.qualified
    if talk.queue is not None and queued:
        if talk.queue not in talk.forwards:
            talk.forwards.append(talk.queue)
        return talk.queue
    cannot = Verdict(Code.TEMPFAIL, replies.CANNOT_FORWARD, (path.address,))
    if queued:
        for forward in talk.forwards:
            if forward.queued:
                return forward
        local = await _local_route(talk)
        if local is None:
            return cannot
        route = local
    else:
        assert recipient.route is not None
        route = recipient.route
    for forward in talk.forwards:
        if forward.route_key == route.key or forward.serves(route.forward):
            return forward
    if not route.forward:
        session.count(counters.RCPT_RELAY_DENIED)
        return Verdict(Code.REJECT, replies.NO_FORWARD_HOSTS, (path.address,))
    forward = engine.forwarder.connection(session, transaction, route, queued=queued)
    refusal = await forward.open(path)
    if forward.connected and queued:
        session.log(QUEUING, forward.host_text, forward.address, path.address)
        session.count(counters.MSG_QUEUE)
        transaction.flags.add(MsgFlag.QUEUED)
    if refusal is None:
        talk.forwards.append(forward)
        return forward
    forward.close()
    return refusal if isinstance(refusal, Verdict) else cannot


async def _local_route(talk: Conversation) -> Route | None:
    """The local route if it can be used, else the reason in the log (maps, 20)."""
    session = talk.session
    route = await talk.engine.routes.local_route()
    if not isinstance(route, Route):
        session.log(LOCAL_ROUTE_REQUIRED)
        return None
    if not route.forward:
        session.log(LOCAL_ROUTE_FORWARD)
        return None
    if not session.localhost and any(host.host.lower() in (session.address, session.name) for host in route.forward):
        session.log(MAIL_LOOP, session.name, session.address)
        return None
    return route


# ETRN


async def etrn(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """ETRN: ask the local route's queue to run (RFC 1985)."""
    request = talk.engine.queue_request
    if request is None:
        return Verdict(Code.CONTINUE, replies.NOT_IMPLEMENTED, ("ETRN",))
    return await request.ask(talk.session, argument)


# Both


def _spaces_forbidden(session: Session) -> bool:
    return session.settings[EXTRA_SPACES] and not session.usual_suspect and not session.auth


def _as_written(error: PathError) -> Path:
    """A path that broke the grammar, for the log."""
    return Path(error.path, error.path.strip().removeprefix("<").removesuffix(">"))


def _count(session: Session, verdict: Verdict, drop: Counter | None, reject: Counter | None, tempfail: Counter | None) -> None:
    counter = {Code.DROP: drop, Code.REJECT: reject, Code.TEMPFAIL: tempfail}[verdict.code]
    if counter is not None:
        session.count(counter)
