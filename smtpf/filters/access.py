"""The access map's word on a client, a HELO name, a sender and a recipient.

An entry white-lists, refuses, discards, traps, saves or tags; the most specific entry that exists decides, and the
recipient's before the sender's before the client's. Where no entry speaks, reserved names and unknown top-level domains are
refused. Source: spec chapter maps, 16; session, 4.3 and 4.5.
"""

from __future__ import annotations

import re

import attrs

from smtpf.dns.domains import Domains, is_reserved
from smtpf.filters.idle_retest import IDLE_RETEST_FOUND
from smtpf.filters.reserved import REJECT_UNKNOWN_TLD, RFC2606_SPECIAL_DOMAINS
from smtpf.journal.message import Message, info
from smtpf.maps.access import AccessMap, Hit
from smtpf.pipeline import (
    ACCEPT,
    DISCARD,
    SKIP_REMAINDER,
    Code,
    Filter,
    MaybeVerdict,
    Stage,
    Verdict,
    accept,
    discard,
    drop,
    grey,
    reject,
    tempfail,
)
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import ClientFlag, MailFlag, MsgFlag, RcptFlag, Recipient, Session, SpfResult, Transaction
from smtpf.stats.counter import Counter, Group

REJECT_PERCENT_RELAY = Flag("reject-percent-relay", True, "Refuse recipients with a percent sign, an old way to relay.", area="access")
REJECT_UUCP_ROUTE = Flag("reject-uucp-route", True, "Refuse recipients with an exclamation mark, a UUCP route.", area="access")
REJECT_QUOTED_AT_SIGN = Flag("reject-quoted-at-sign", True, "Refuse recipients with an at-sign in the local part.", area="access")
SMTP_AUTH_WHITE = Flag("smtp-auth-white", False, "Messages of authenticated clients bypass the content filters.", area="smtp-auth")

HOST_WHITE = info(119, "host %s [%s] white listed", "A Connect: entry white-lists the client.", fields=("client", "address"))
HOST_SENDER_WHITE = info(
    124, "host %s [%s] sender <%s> white listed", "A Connect:From: entry white-lists the message.", fields=("client", "address", "sender")
)
SENDER_WHITE = info(126, "sender <%s> white listed", "A From: entry white-lists the message.", fields=("sender",))
HOST_RCPT_WHITE = info(
    134,
    "host %s [%s] recipient <%s> white listed",
    "A Connect:To: entry white-lists the recipient.",
    fields=("client", "address", "recipient"),
)
SENDER_RCPT_WHITE = info(
    136, "sender <%s> recipient <%s> white listed", "A From:To: entry white-lists the recipient.", fields=("sender", "recipient")
)
RCPT_WHITE = info(138, "recipient <%s> white listed", "A To: entry white-lists the recipient.", fields=("recipient",))
HELO_WHITE = info(923, "helo %s white listed", "A Helo: entry white-lists the client.", fields=("helo",), since="later")
HOST_DISCARD = info(
    974, "host %s [%s] discard", "A Connect: entry discards every message of the session.", fields=("client", "address"), since="later"
)
MESSAGE_DISCARD = info(975, "message discard", "A From: or To: entry discards the message.", since="later")
HELO_DISCARD = info(976, "helo %s discard", "A Helo: entry discards every message of the session.", fields=("helo",), since="later")

HOST_BLACK = Reply(120, "550 5.7.1 host %s [%s] %s", meaning="A Connect: entry refuses the client.")
HOST_TEMPFAIL = Reply(853, "450 4.7.1 host %s [%s] %s", meaning="A Connect: entry refuses the client for now.")
HOST_BLACK_NOW = Reply(854, "550 5.7.1 host %s [%s] %s", meaning="A Connect: entry with IREJECT refuses the client at once.")
HOST_RESERVED = Reply(121, "550 5.7.1 host %s [%s] from RFC2606 reserved domain", meaning="The client's name lies in a reserved domain.")
HOST_UNKNOWN_TLD = Reply(
    122, "550 5.7.1 host %s [%s] from unknown TLD", meaning="The client's name ends in a top-level domain that does not exist."
)
HELO_BLACK = Reply(924, "550 5.7.1 helo %s %s", meaning="A Helo: entry refuses the client.")
HELO_TEMPFAIL = Reply(925, "450 4.7.1 helo %s %s", meaning="A Helo: entry refuses the client for now.")
HELO_BLACK_NOW = Reply(926, "550 5.7.1 helo %s %s", meaning="A Helo: entry with IREJECT refuses the client at once.")
HOST_SENDER_BLACK = Reply(125, "550 5.7.1 host %s [%s] sender <%s> %s", meaning="A Connect:From: entry refuses the sender.")
HOST_SENDER_TEMPFAIL = Reply(814, "450 4.7.1 host %s [%s] sender <%s> %s", meaning="A Connect:From: entry refuses the sender for now.")
HOST_SENDER_BLACK_NOW = Reply(
    855, "550 5.7.1 host %s [%s] sender <%s> %s", meaning="A Connect:From: entry with IREJECT refuses the sender."
)
SENDER_BLACK = Reply(127, "550 5.7.1 sender <%s> %s", meaning="A From: entry refuses the sender.")
SENDER_TEMPFAIL = Reply(815, "450 4.7.1 sender <%s> %s", meaning="A From: entry refuses the sender for now.")
SENDER_BLACK_NOW = Reply(856, "550 5.7.1 sender <%s> %s", meaning="A From: entry with IREJECT refuses the sender at once.")
SENDER_RESERVED = Reply(128, "550 5.7.1 sender <%s> from RFC2606 reserved domain", meaning="The sender's domain is reserved.")
SENDER_UNKNOWN_TLD = Reply(129, "550 5.7.1 sender <%s> from unknown TLD", meaning="The sender's top-level domain does not exist.")
PERCENT_RELAY = Reply(131, "550 5.7.1 routed address relaying denied", meaning="The recipient holds a percent sign.")
UUCP = Reply(132, "550 5.7.1 UUCP addressing denied", meaning="The recipient holds an exclamation mark.")
QUOTED_AT = Reply(133, "550 5.7.1 special case of at-sign in local-part denied", meaning="The recipient's local part holds an at-sign.")
HOST_RCPT_BLACK = Reply(135, "550 5.7.1 host %s [%s] recipient <%s> %s", meaning="A Connect:To: entry refuses the recipient.")
HOST_RCPT_TEMPFAIL = Reply(816, "450 4.7.1 host %s [%s] recipient <%s> %s", meaning="A Connect:To: entry refuses the recipient for now.")
SENDER_RCPT_BLACK = Reply(137, "550 5.7.1 sender <%s> recipient <%s> %s", meaning="A From:To: entry refuses the recipient.")
SENDER_RCPT_TEMPFAIL = Reply(817, "450 4.7.1 sender <%s> recipient <%s> %s", meaning="A From:To: entry refuses the recipient for now.")
RCPT_BLACK = Reply(139, "550 5.7.1 recipient <%s> %s", meaning="A To: entry refuses the recipient.")
RCPT_TEMPFAIL = Reply(818, "450 4.7.1 recipient <%s> %s", meaning="A To: entry refuses the recipient for now.")
RCPT_RESERVED = Reply(140, "550 5.7.1 recipient <%s> from RFC2606 reserved domain", meaning="The recipient's domain is reserved.")
RCPT_UNKNOWN_TLD = Reply(141, "550 5.7.1 recipient <%s> from unknown TLD", meaning="The recipient's top-level domain does not exist.")

CONNECT_BL = Counter("connect-bl", Group.CONNECT, "Clients refused by Connect:.")
CONNECT_GL = Counter("connect-gl", Group.CONNECT, "Clients that Connect: lets by the tests before content.")
CONNECT_WL = Counter("connect-wl", Group.CONNECT, "Clients white-listed by Connect:, trusted ones not counted.")
HELO_BL = Counter("helo-bl", Group.CONNECT, "Clients refused by Helo:.", since="later")
HELO_GL = Counter("helo-gl", Group.CONNECT, "Clients that Helo: lets by the tests before content.", since="later")
HELO_WL = Counter("helo-wl", Group.CONNECT, "Clients white-listed by Helo:.", since="later")
CONNECT_MAIL_BL = Counter("connect-mail-bl", Group.MAIL, "Senders refused by Connect:From:.")
CONNECT_MAIL_WL = Counter("connect-mail-wl", Group.MAIL, "Messages white-listed by Connect:From:.")
MAIL_BL = Counter("mail-bl", Group.MAIL, "Senders refused by From:.")
MAIL_WL = Counter("mail-wl", Group.MAIL, "Messages white-listed by From:.")
CONNECT_RCPT_BL = Counter("connect-rcpt-bl", Group.RCPT, "Recipients refused by Connect:To:.")
CONNECT_RCPT_WL = Counter("connect-rcpt-wl", Group.RCPT, "Recipients white-listed by Connect:To:.")
MAIL_RCPT_BL = Counter("mail-rcpt-bl", Group.RCPT, "Recipients refused by From:To:.")
MAIL_RCPT_WL = Counter("mail-rcpt-wl", Group.RCPT, "Recipients white-listed by From:To:.")
RCPT_BL = Counter("rcpt-bl", Group.RCPT, "Recipients refused by To:.")
RCPT_WL = Counter("rcpt-wl", Group.RCPT, "Recipients white-listed by To:.")

CONNECT_TAG = "connect:"
HELO_TAG = "helo:"
_FLAGS_OF_CONNECT = (
    ClientFlag.WHITE, ClientFlag.BLACK, ClientFlag.LOCAL_BLACK, ClientFlag.GREY, ClientFlag.SAVE, ClientFlag.TAG, ClientFlag.TRAP,
    ClientFlag.DISCARD, ClientFlag.TEMPFAIL,
)  # fmt: skip
_BLACK = "black listed"
_LATER = "temporary failure"
_OWN_WORDS = re.compile("white listed|discard")


class Access(Filter):
    """Asks the access map at every stage, and keeps its word on white-listed and discarded messages (the gate)."""

    def __init__(self, access: AccessMap, domains: Domains) -> None:
        self._access = access
        self._domains = domains

    # Connect:

    async def connect(self, session: Session) -> Verdict | None:
        """Connect: for the client's address and name."""
        hit = await self._access.lookup_client(CONNECT_TAG, session.name, session.address, session.sid)
        if hit is None:
            return self._client_name(session)
        return self._client_action(session, hit)

    async def idle(self, session: Session) -> Verdict | None:
        """Connect: once more; what it said before is forgotten."""
        session.flags.difference_update(_FLAGS_OF_CONNECT)
        session.forget_lists()
        verdict = await self.connect(session)
        if verdict is not None:
            session.count(IDLE_RETEST_FOUND)
        return verdict

    def _client_name(self, session: Session) -> Verdict | None:
        if session.trusted or session.private or not session.name:
            return None
        settings = session.settings
        if settings[RFC2606_SPECIAL_DOMAINS] and is_reserved(session.name):
            return drop(HOST_RESERVED, session.name, session.address, delay=True, whole_session=True)
        if settings[REJECT_UNKNOWN_TLD] and not self._domains.known(session.name):
            return drop(HOST_UNKNOWN_TLD, session.name, session.address, delay=True, whole_session=True)
        return None

    def _client_action(self, session: Session, hit: Hit) -> Verdict | None:
        name, address, flags, key = session.name, session.address, session.flags, hit.key
        match hit.word:
            case "OK" | "OK+AV":
                _say(session, hit, HOST_WHITE, name, address)
                if not session.trusted:
                    session.count(CONNECT_WL)
                flags.add(ClientFlag.WHITE)
                session.ok_av = session.ok_av or hit.word == "OK+AV"
                return accept(key)
            case "REJECT":
                flags.update((ClientFlag.BLACK, ClientFlag.LOCAL_BLACK))
                session.count(CONNECT_BL)
                return drop(HOST_BLACK, name, address, hit.parameter or _BLACK, delay=True, whole_session=True, fact=key)
            case "IREJECT":
                flags.update((ClientFlag.BLACK, ClientFlag.LOCAL_BLACK))
                session.count(CONNECT_BL)
                return drop(HOST_BLACK_NOW, name, address, hit.parameter or _BLACK, fact=key)
            case "TEMPFAIL":
                flags.add(ClientFlag.TEMPFAIL)
                return tempfail(HOST_TEMPFAIL, name, address, hit.parameter or _LATER, delay=True, whole_session=True, fact=key)
            case "CONTENT":
                flags.add(ClientFlag.GREY)
                session.count(CONNECT_GL)
                return grey(key)
            case "DISCARD":
                _say(session, hit, HOST_DISCARD, name, address)
                flags.add(ClientFlag.DISCARD)
                return None
            case _:
                return _set_client_flag(session, hit)

    # Helo:

    def helo(self, session: Session) -> MaybeVerdict:
        """Helo: for the argument. Known clients skip the whole stage."""
        if session.usual_suspect or session.grey:
            return SKIP_REMAINDER
        return self._helo(session)

    async def _helo(self, session: Session) -> Verdict | None:
        hit = await self._access.lookup_client(HELO_TAG, session.helo, "", session.sid)
        if hit is None:
            return None
        helo, flags, key = session.helo, session.flags, hit.key
        match hit.word:
            case "OK" | "OK+AV":
                _say(session, hit, HELO_WHITE, helo)
                session.count(HELO_WL)
                flags.add(ClientFlag.WHITE)
                session.ok_av = session.ok_av or hit.word == "OK+AV"
                return accept(key)
            case "REJECT":
                flags.update((ClientFlag.BLACK, ClientFlag.LOCAL_BLACK))
                session.count(HELO_BL)
                return drop(HELO_BLACK, helo, hit.parameter or _BLACK, delay=True, whole_session=True, fact=key)
            case "IREJECT":
                flags.update((ClientFlag.BLACK, ClientFlag.LOCAL_BLACK))
                session.count(HELO_BL)
                return reject(HELO_BLACK_NOW, helo, hit.parameter or _BLACK, fact=key)
            case "TEMPFAIL":
                flags.add(ClientFlag.TEMPFAIL)
                return tempfail(HELO_TEMPFAIL, helo, hit.parameter or _LATER, delay=True, whole_session=True, fact=key)
            case "CONTENT":
                flags.add(ClientFlag.GREY)
                session.count(HELO_GL)
                return grey(key)
            case "DISCARD":
                _say(session, hit, HELO_DISCARD, helo)
                flags.add(ClientFlag.DISCARD)
                return None
            case _:
                return _set_client_flag(session, hit)

    # Connect:From:, From:

    async def mail(self, session: Session, transaction: Transaction) -> Verdict | None:
        """The sender, by client and alone; without an entry the session's own state goes on to the message."""
        _inherit(session, transaction)
        sender = transaction.sender
        hit = await self._access.lookup_connect_from(session.name, session.address, sender.address, session.sid)
        if hit is not None:
            return self._sender_action(session, transaction, hit, by_client=True)
        hit = await self._access.lookup_mail("from:", sender.address, session.sid)
        if hit is not None:
            return self._sender_action(session, transaction, hit, by_client=False)
        if not session.usual_suspect and not session.grey and sender.domain and not sender.literal:
            settings = session.settings
            if settings[RFC2606_SPECIAL_DOMAINS] and is_reserved(sender.domain):
                return reject(SENDER_RESERVED, sender.address, delay=True)
            if settings[REJECT_UNKNOWN_TLD] and not self._domains.known(sender.domain):
                return reject(SENDER_UNKNOWN_TLD, sender.address, delay=True)
        return _handed_down(session)

    def _sender_action(self, session: Session, transaction: Transaction, hit: Hit, *, by_client: bool) -> Verdict | None:
        sender, key = transaction.sender.address, hit.key
        subject: tuple[str, ...] = (session.name, session.address, sender) if by_client else (sender,)
        word = _spf_word(hit.word, transaction.spf_mail)
        match word:
            case "OK" | "OK+AV":
                _say(session, hit, HOST_SENDER_WHITE if by_client else SENDER_WHITE, *subject)
                session.count(CONNECT_MAIL_WL if by_client else MAIL_WL)
                transaction.mail_flags.add(MailFlag.WHITE)
                transaction.list_state = Code.ACCEPT
                if word == "OK+AV":
                    transaction.flags.add(MsgFlag.OK_AV)
                return accept(key)
            case "REJECT" | "IREJECT":
                transaction.mail_flags.update((MailFlag.BLACK, MailFlag.LOCAL_BLACK))
                session.count(CONNECT_MAIL_BL if by_client else MAIL_BL)
                if word == "IREJECT":
                    reply = HOST_SENDER_BLACK_NOW if by_client else SENDER_BLACK_NOW
                    return reject(reply, *subject, hit.parameter or _BLACK, fact=key)
                return reject(HOST_SENDER_BLACK if by_client else SENDER_BLACK, *subject, hit.parameter or _BLACK, delay=True, fact=key)
            case "TEMPFAIL":
                transaction.mail_flags.add(MailFlag.TEMPFAIL)
                reply = HOST_SENDER_TEMPFAIL if by_client else SENDER_TEMPFAIL
                return tempfail(reply, *subject, hit.parameter or _LATER, delay=True, fact=key)
            case "DISCARD":
                _say(session, hit, MESSAGE_DISCARD)
                transaction.flags.add(MsgFlag.DISCARD)
                transaction.list_state = Code.DISCARD
                return discard(key)
            case "TRAP":
                transaction.flags.add(MsgFlag.TRAP)
                transaction.trap_directory = hit.parameter
                transaction.list_state = Code.DISCARD
                return discard(key)
            case "SAVE" | "TAG" | "PROTOCOL":
                _mark(transaction, hit)
                return None
            case _:
                return _handed_down(session)

    # Connect:To:, From:To:, To:

    async def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        """The recipient, by client, by sender and alone; without an entry the message's own state decides."""
        refused = _routed_address(session, recipient)
        if refused is not None:
            return refused
        sender, address = transaction.sender.address, recipient.path.address
        access, sid = self._access, session.sid
        client = (session.name, session.address)
        hit = await access.lookup_connect_to(*client, address, sid)
        if hit is not None:
            found = (HOST_RCPT_WHITE, CONNECT_RCPT_WL, HOST_RCPT_BLACK, CONNECT_RCPT_BL, HOST_RCPT_TEMPFAIL)
            return _recipient_action(session, transaction, recipient, hit, (*client, address), *found)
        hit = await access.lookup_from_to(sender, address, sid)
        if hit is not None:
            found = (SENDER_RCPT_WHITE, MAIL_RCPT_WL, SENDER_RCPT_BLACK, MAIL_RCPT_BL, SENDER_RCPT_TEMPFAIL)
            return _recipient_action(session, transaction, recipient, hit, (sender, address), *found)
        hit = await access.lookup_mail("to:", address, sid)
        if hit is not None:
            found = (RCPT_WHITE, RCPT_WL, RCPT_BLACK, RCPT_BL, RCPT_TEMPFAIL)
            return _recipient_action(session, transaction, recipient, hit, (address,), *found)
        return self._recipient_name(session, recipient) or _message_state(session, transaction)

    def _recipient_name(self, session: Session, recipient: Recipient) -> Verdict | None:
        path = recipient.path
        if session.usual_suspect or session.grey or not path.domain or path.literal:
            return None
        settings = session.settings
        if settings[RFC2606_SPECIAL_DOMAINS] and is_reserved(path.domain):
            return reject(RCPT_RESERVED, path.address)
        if settings[REJECT_UNKNOWN_TLD] and path.mailbox != "postmaster" and not self._domains.known(path.domain):
            return reject(RCPT_UNKNOWN_TLD, path.address)
        return None

    # The gate

    def gate(self, session: Session, transaction: Transaction, chunk: bytes = b"") -> MaybeVerdict:
        """What the lists said of the message, asked in data, headers, content and dot (4.5)."""
        flags = transaction.flags
        if MsgFlag.DISCARD in flags or MsgFlag.TRAP in flags:
            return DISCARD
        if session.auth and session.settings[SMTP_AUTH_WHITE]:
            return ACCEPT
        if any(recipient.white for recipient in transaction.recipients):
            return ACCEPT
        tagged = MsgFlag.TAG in flags and session.slots.delayed is not None
        if transaction.list_state is Code.ACCEPT or tagged:
            return ACCEPT
        if transaction.list_state is Code.DISCARD:
            return DISCARD
        if MsgFlag.OK in flags or MsgFlag.OK_AV in flags:
            return ACCEPT
        return None


def _say(session: Session, hit: Hit, message: Message, *subject: str) -> None:
    """Log an entry's effect; its parameter, when it has one, takes the place of the message's own words."""
    if hit.parameter:
        message = attrs.evolve(message, format=_OWN_WORDS.sub("%s", message.format), fields=(*message.fields, "text"))
        session.log(message, *subject, hit.parameter)
    else:
        session.log(message, *subject)


def _set_client_flag(session: Session, hit: Hit) -> Verdict | None:
    """SAVE, TRAP, TAG and PROTOCOL mark the session; other words decide nothing."""
    match hit.word:
        case "SAVE":
            session.flags.add(ClientFlag.SAVE)
            session.save_directory = hit.parameter
        case "TRAP":
            session.flags.add(ClientFlag.TRAP)
            session.trap_directory = hit.parameter
            return SKIP_REMAINDER
        case "TAG":
            session.flags.add(ClientFlag.TAG)
        case "PROTOCOL":
            session.protocol = True
    return None


def _inherit(session: Session, transaction: Transaction) -> None:
    """The message takes over what the lists said of the client or its HELO name."""
    for client, message in (
        (ClientFlag.DISCARD, MsgFlag.DISCARD),
        (ClientFlag.TRAP, MsgFlag.TRAP),
        (ClientFlag.SAVE, MsgFlag.SAVE),
        (ClientFlag.TAG, MsgFlag.TAG),
    ):
        if client in session.flags:
            transaction.flags.add(message)
    transaction.save_directory = session.save_directory
    transaction.trap_directory = session.trap_directory
    if session.ok_av:
        transaction.flags.add(MsgFlag.OK_AV)
    if session.protocol:
        transaction.flags.add(MsgFlag.OK)
    if session.white or (MsgFlag.TAG in transaction.flags and session.slots.delayed is not None):
        transaction.list_state = Code.ACCEPT


def _spf_word(word: str, result: SpfResult) -> str:
    """SPF-PASS, POLICY-PASS and POLICY-OK become OK, or nothing."""
    if word in ("SPF-PASS", "POLICY-PASS", "POLICY-OK"):
        return "OK" if result is SpfResult.PASS or (word == "POLICY-OK" and result is SpfResult.NONE) else ""
    return word


def _handed_down(session: Session) -> Verdict | None:
    """The session's state where no entry of the sender decides."""
    if session.white:
        return ACCEPT
    if session.grey:
        return grey("client")
    if ClientFlag.TRAP in session.flags:
        return DISCARD
    return SKIP_REMAINDER if _refused_at(session, Stage.CONNECT, Stage.IDLE) else None


def _refused_at(session: Session, *stages: Stage) -> bool:
    """A list refused the client or the sender at one of these stages, and the refusal waits: the rest of the stage is not asked."""
    refusing = session.slots.refusing
    return refusing is not None and refusing.filter == "access" and refusing.stage in stages


def _message_state(session: Session, transaction: Transaction) -> Verdict | None:
    """The message's state where no entry of the recipient decides."""
    if MsgFlag.TRAP in transaction.flags or transaction.list_state is Code.DISCARD:
        return DISCARD
    if transaction.list_state is Code.ACCEPT:
        return ACCEPT if session.slots.refusing is None or MailFlag.WHITE in transaction.mail_flags else SKIP_REMAINDER
    if session.grey:
        return grey("client")
    return SKIP_REMAINDER if _refused_at(session, Stage.CONNECT, Stage.IDLE, Stage.MAIL) else None


def _recipient_action(
    session: Session,
    transaction: Transaction,
    recipient: Recipient,
    hit: Hit,
    subject: tuple[str, ...],
    white: Message,
    white_counter: Counter,
    black: Reply,
    black_counter: Counter,
    later: Reply,
) -> Verdict | None:
    """What an entry of the To: family does (maps, 16.4). These verdicts are never delayed."""
    key = hit.key
    match hit.word:
        case "OK" | "OK+AV":
            _say(session, hit, white, *subject)
            session.count(white_counter)
            recipient.flags.add(RcptFlag.WHITE)
            recipient.white = True
            if hit.word == "OK+AV":
                transaction.flags.add(MsgFlag.OK_AV)
            return accept(key)
        case "REJECT":
            recipient.flags.update((RcptFlag.BLACK, RcptFlag.LOCAL_BLACK))
            session.count(black_counter)
            return reject(black, *subject, hit.parameter or _BLACK, fact=key)
        case "TEMPFAIL":
            recipient.flags.add(RcptFlag.TEMPFAIL)
            return tempfail(later, *subject, hit.parameter or _LATER, fact=key)
        case "DISCARD":
            _say(session, hit, MESSAGE_DISCARD)
            return discard(key)
        case "TRAP":
            recipient.trapped = True
            transaction.trap_directory = hit.parameter
            return discard(key)
        case "SAVE" | "TAG" | "PROTOCOL":
            _mark(transaction, hit)
            return None
        case _:
            return _message_state(session, transaction)


def _mark(transaction: Transaction, hit: Hit) -> None:
    """SAVE, TAG and PROTOCOL mark the message and decide nothing."""
    if hit.word == "SAVE":
        transaction.save_directory = hit.parameter
    transaction.flags.add({"SAVE": MsgFlag.SAVE, "TAG": MsgFlag.TAG}.get(hit.word, MsgFlag.OK))


def _routed_address(session: Session, recipient: Recipient) -> Verdict | None:
    """Old ways to make one host send on to another."""
    settings, path = session.settings, recipient.path
    if settings[REJECT_PERCENT_RELAY] and "%" in path.address:
        return reject(PERCENT_RELAY)
    if settings[REJECT_UUCP_ROUTE] and "!" in path.address:
        return reject(UUCP)
    if settings[REJECT_QUOTED_AT_SIGN] and "@" in path.local:
        return reject(QUOTED_AT)
    return None
