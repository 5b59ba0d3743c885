"""Forward connections: how recipients and messages reach the real mail servers while the client waits.

A connection is opened when the first recipient of its route is named, so the next hop's own answer to RCPT is the
client's answer. At the end of the message every next hop that said 354 gets the content, all at the same time, and
their answers to the final dot decide what the client hears. There is no queue: what no next hop has taken, the client
keeps. Source: spec chapter session, 6.2 to 6.6 and 8.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from smtpf.journal.message import err
from smtpf.maps.routes import FORWARD_SELECTION, in_order_of_trial
from smtpf.message.spool import SpoolError
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Number
from smtpf.smtp import dialogue, kept, options, replies
from smtpf.smtp.client import FailureKind, HopAnswer, HopFailure, HopReply, NextHopProtocol, Read
from smtpf.smtp.connect import Addresses, connect
from smtpf.smtp.kept import Reached
from smtpf.smtp.session import MailFlag
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.maps.hosts import Host
    from smtpf.maps.routes import Route
    from smtpf.message.spool import Spool
    from smtpf.settings.store import Settings
    from smtpf.smtp.grammar import Path
    from smtpf.smtp.session import Session, Transaction
    from smtpf.smtp.tls import TlsContexts

SMTP_CONNECT_TIMEOUT = Number(
    "smtp-connect-timeout", 60, "Seconds to wait for a connection to a next hop or call-ahead host, and for a TLS handshake.",
    choices="seconds", least=1, area="smtp",
)  # fmt: skip
SMTP_DOT_TIMEOUT = Number(
    "smtp-dot-timeout", 600, "Seconds each next hop has to answer the final dot of a message.", choices="seconds", least=1, area="smtp"
)
SMTP_KEEP_ALIVE_TIMEOUT = Number(
    "smtp-keep-alive-timeout",
    60,
    "Seconds of silence after which a waiting connection to a next hop gets a NOOP, so that it is not closed while the client is slow.",
    choices="seconds; 0 = off",
    least=0,
    since="later",
    area="smtp",
)
RELAY_REPLY = Flag(
    "relay-reply",
    False,
    "Tell the client the next hop's own words when it refuses a recipient; when off, a neutral text with the same code.",
    area="route",
)

CHUNK_WRITE_ERROR = err(
    301, "chunk write error: %s (%d)", "A next hop was lost while it was being sent the content. It counts as failed; others go on.",
    fields=("error", "errno"),
)  # fmt: skip
ALL_REJECTED_DATA = err(
    312, "DATA rejected by all forward hosts", "Several next hops had taken recipients, and none of them wants the content."
)
WRITE_ERROR = err(
    482, "%s write error: %s (%d)", "A command could not be written to a next hop of this route. The client is told to try again.",
    fields=("route", "error", "errno"),
)  # fmt: skip
READ_ERROR = err(
    486,
    "%s read error: %s (%d)",
    "A next hop of this route closed the connection, stayed silent for too long, or broke the protocol. The client is told to try again.",
    fields=("route", "error", "errno"),
)
REJECTED_MESSAGE = err(
    331, "%s rejected message: %s", "A next hop of this route refused the message at DATA or at the final dot; these are its words.",
    fields=("route", "reply"),
)  # fmt: skip

HOST_REPLY = Reply(299, "%s", meaning="relay-reply: the next hop's own refusal of the recipient.")
RECIPIENT_DENIED = Reply(300, "%srecipient <%s> denied", meaning="The next hop refused the recipient; code and class are its own.")
NETWORK_ERROR = Reply(
    485, "451 4.4.2 internal network error for %s", meaning="relay-reply: the connection to a next hop of this route was lost."
)

HELO_TEMPFAIL = Counter("forward-helo-tempfail", Group.RCPT, "Next hops that refused EHLO and HELO temporarily, or were lost there.")
HELO_REJECT = Counter("forward-helo-reject", Group.RCPT, "Next hops that refused EHLO and HELO.")
MAIL_TEMPFAIL = Counter("forward-mail-tempfail", Group.RCPT, "Next hops that refused the sender temporarily, or were lost there.")
MAIL_REJECT = Counter("forward-mail-reject", Group.RCPT, "Next hops that refused the sender.")
RCPT_TEMPFAIL = Counter("forward-rcpt-tempfail", Group.RCPT, "Recipients refused temporarily by their next hop, or lost with it.")
RCPT_REJECT = Counter("forward-rcpt-reject", Group.RCPT, "Recipients refused by their next hop.")


CLOSING = 421
"""The host is about to close the connection (RFC 5321 3.8)."""
RSET_TIMEOUT = 10.0
"""Seconds that a host has to answer RSET on a kept connection, before it is taken for dead."""


class TlsPolicy(Enum):
    """What a next hop must offer."""

    MAY = "may"
    """STARTTLS when offered, whatever certificate it shows; in the clear when the handshake fails."""
    REQUIRE = "require"
    """No mail in the clear; the certificate is not looked at."""
    VERIFY = "verify"
    """No mail in the clear, and the certificate must be valid for the host's name."""


@attrs.frozen
class HostOutcome:
    """What became of the message at one next hop."""

    connection: ForwardConnection
    answer: HopAnswer
    """To DATA when it was not 354, else to the final dot."""
    opened: bool
    """354 was heard."""

    @property
    def accepted(self) -> bool:
        return self.opened and self.answer.positive

    @property
    def permanent(self) -> bool:
        return isinstance(self.answer, HopReply) and self.answer.permanent

    @property
    def text(self) -> str:
        """Last line of the host's reply, or why there is none."""
        return self.answer.last if isinstance(self.answer, HopReply) else self.answer.text


def combine(outcomes: Sequence[HostOutcome], tid: str) -> Verdict:
    """What the client hears of its message (spec chapter session, 8.2, with its Modern rules).

    One host that took it is enough for 250; the failed ones get a DSN then. When none took it, one temporary failure
    among them makes the answer temporary, because the client can try again and nothing has been delivered.
    """
    if not outcomes or any(outcome.accepted for outcome in outcomes):
        return Verdict(Code.CONTINUE, replies.MESSAGE_ACCEPTED, (tid,))
    if all(outcome.permanent for outcome in outcomes):
        return Verdict(Code.REJECT, replies.TRANSACTION_FAILED, fact=outcomes[0].text)
    temporary = [outcome for outcome in outcomes if not outcome.permanent]
    ours = any(isinstance(each.answer, HopFailure) and each.answer.kind is FailureKind.CONTENT for each in temporary)
    reply = replies.INTERNAL_ERROR_LATER if ours else replies.TRANSACTION_ABORTED
    return Verdict(Code.TEMPFAIL, reply, fact=temporary[0].text)


def undelivered(outcomes: Sequence[HostOutcome]) -> list[HostOutcome]:
    """The hosts whose recipients need a DSN: those that failed while another host took the message."""
    if not any(outcome.accepted for outcome in outcomes):
        return []
    return [outcome for outcome in outcomes if not outcome.accepted]


class ForwardConnection:
    """The connection of one route within one transaction, or the kept one of an authenticated session."""

    def __init__(self, forwarder: Forwarder, session: Session, transaction: Transaction | None, route: Route, queued: bool) -> None:
        self._forwarder = forwarder
        self._session = session
        self._transaction = transaction
        self.route = route
        self.route_key = route.key
        """As in #331 and #486."""
        self.queued = queued
        """The route is the local route."""
        self.host: Host | None = None
        self.protocol: NextHopProtocol | None = None
        self.recipients: list[Path] = []
        """Those the next hop has accepted, in order."""
        self.broken = False
        """The connection was lost."""
        self.outcome: HostOutcome | None = None
        """What became of the message."""
        self._spoken = False
        self._named: tuple[Path, HopAnswer] | None = None
        """The recipient that has been named together with the sender, and the host's answer."""
        self._reached: Reached | None = None
        """Set as long as the connection may carry further transactions after this one."""

    @classmethod
    def kept(cls, forwarder: Forwarder, session: Session, route: Route, reached: Reached) -> ForwardConnection:
        """The connection over which all mail of an authenticated session goes. ``mail`` begins each transaction on it."""
        made = cls(forwarder, session, None, route, True)
        made.host, made.protocol = reached.host, reached.protocol
        return made

    @property
    def connected(self) -> bool:
        """A host has said 220, and nothing has gone wrong with the connection since."""
        return self.protocol is not None and self.protocol.broken is None

    @property
    def host_text(self) -> str:
        """The host as it is written in the route-map."""
        return self.host.text if self.host is not None else ""

    @property
    def address(self) -> str:
        """Address of the host, or the path of its UNIX socket."""
        return self.protocol.address if self.protocol is not None else ""

    def serves(self, hosts: Sequence[Host]) -> bool:
        """The host of this connection, by name or address and by port, is one of ``hosts``."""
        mine = self.host
        if mine is None:
            return False
        places = {(host.host.lower(), host.port, host.unix) for host in hosts}
        return (mine.host.lower(), mine.port, mine.unix) in places or (self.address, mine.port, "") in places

    async def open(self, path: Path) -> Verdict | HopFailure | None:
        """Connect to the first host of the route that answers, greet it, and send MAIL.

        None: ready for RCPT. A failure: no host greets with 220. A verdict: a host did, and refused EHLO and HELO or
        MAIL, or was lost there; it is the answer to ``path``, the recipient that was to be the first.
        """
        session = self._session
        hosts = self._forwarder.in_order(session.settings, self.route.forward)
        reached = await self._forwarder.reach(session.settings, session.interface_name, hosts, reuse=True)
        answer: HopAnswer | None = None
        if isinstance(reached, Reached) and reached.reused:
            answer = await self._mail_again(reached, path)
            session.count(kept.REPLACED if answer is None else kept.REUSED)
            if answer is None:
                hosts = hosts[hosts.index(reached.host) :]
                reached = await self._forwarder.reach(session.settings, session.interface_name, hosts)
        if isinstance(reached, HopFailure):
            return reached
        self.host, self.protocol = reached.host, reached.protocol
        if reached.answer.code != 250:
            return self._refused(path, reached.answer, HELO_TEMPFAIL, HELO_REJECT)
        if answer is None:
            assert self._transaction is not None
            answer = await self.mail(self._transaction)
        if not answer.positive:
            return self._refused(path, answer, MAIL_TEMPFAIL, MAIL_REJECT)
        self._reached = reached
        return None

    async def _mail_again(self, reached: Reached, path: Path) -> HopReply | None:
        """RSET and MAIL on a connection kept from an earlier transaction, with RCPT for ``path`` in one go where the host allows it.

        None when it is of no use any more and must be replaced: it has died, or its host says 4yz, which may be about the
        connection (too many messages, too old) and not about this sender.
        """
        protocol, transaction = reached.protocol, self._transaction
        assert transaction is not None
        line = self._mail_line(protocol, transaction)
        if isinstance(line, HopReply):
            return line
        timeout = self._session.settings[options.SMTP_COMMAND_TIMEOUT]
        patience = min(RSET_TIMEOUT, timeout)
        protocol.transactions += 1
        if "PIPELINING" in protocol.extensions:
            reset, mail, named = protocol.pipelined([(b"RSET", patience), (line, timeout), (_rcpt_line(path.address), timeout)])
            cleared, answer, heard = await reset, await mail, await named
            if isinstance(heard, HopFailure) or heard.code == CLOSING:
                # Lost in the middle: to be named anew, to a host that is there.
                cleared = heard
            self._named = path, heard
        else:
            cleared = await protocol.rset(patience)
            answer = await protocol.command(line, timeout) if cleared.positive else cleared
        dialogue.with_next_hop(self._session, self.route_key, b"RSET", cleared)
        dialogue.with_next_hop(self._session, self.route_key, line, answer)
        if cleared.positive and isinstance(answer, HopReply) and (answer.positive or answer.permanent):
            return answer
        self._named = None
        self._forwarder.release(protocol)
        return None

    async def mail(self, transaction: Transaction) -> HopAnswer:
        """Send MAIL with what the client said and the next hop understands."""
        protocol = self.protocol
        assert protocol is not None
        line = self._mail_line(protocol, transaction)
        if isinstance(line, HopReply):
            return line
        self._spoken = True
        protocol.transactions += 1
        answer = await protocol.command(line, self._session.settings[options.SMTP_COMMAND_TIMEOUT])
        dialogue.with_next_hop(self._session, self.route_key, line, answer)
        if isinstance(answer, HopFailure):
            self._lost(answer)
        return answer

    def _mail_line(self, protocol: NextHopProtocol, transaction: Transaction) -> bytes | HopReply:
        """MAIL with the parameters of RFC 1870, RFC 6152 and RFC 6531, or why the host cannot take this sender at all."""
        settings, extensions, parameters = self._session.settings, protocol.extensions, transaction.parameters
        line = b"MAIL FROM:<" + transaction.sender.address.encode() + b">"
        if MailFlag.EIGHT_BIT_MIME in transaction.mail_flags and "8BITMIME" in extensions and settings[options.RFC1652_8BITMIME]:
            line += b" BODY=8BITMIME"
        size = parameters.get("SIZE", "")
        if "SIZE" in extensions and size.isascii() and size.isdigit():
            line += b" SIZE=" + size.encode()
        if "SMTPUTF8" in parameters:
            if "SMTPUTF8" not in extensions:
                return HopReply(550, ("550 5.6.7 next hop does not support SMTPUTF8",))
            line += b" SMTPUTF8"
        return line

    async def rcpt(self, path: Path) -> Verdict | None:
        """Name a recipient; refused with a plus-detail, once more without it. None: accepted. Else the client's answer."""
        protocol = self.protocol
        if protocol is None:
            return self._refused(path, HopFailure(FailureKind.READ, "connection closed"), RCPT_TEMPFAIL, RCPT_REJECT)
        timeout = self._session.settings[options.SMTP_COMMAND_TIMEOUT]
        line = _rcpt_line(path.address)
        named, self._named = self._named, None
        answer = named[1] if named is not None and named[0] is path else await protocol.command(line, timeout)
        dialogue.with_next_hop(self._session, self.route_key, line, answer)
        if path.detail and isinstance(answer, HopReply) and not answer.positive:
            self._reached = None
            line = _rcpt_line(without_detail(path))
            answer = await protocol.command(line, timeout)
            dialogue.with_next_hop(self._session, self.route_key, line, answer)
        if answer.positive:
            self.recipients.append(path)
            return None
        return self._refused(path, answer, RCPT_TEMPFAIL, RCPT_REJECT)

    def _refused(self, path: Path, answer: HopAnswer, tempfail: Counter, reject: Counter) -> Verdict:
        """The client's answer when the next hop refused EHLO, MAIL or RCPT, or was lost (6.5)."""
        session = self._session
        # Hosts count what they refuse on a connection, and in the end refuse everything: this one carries no further message.
        self._reached = None
        relay_reply = session.settings[RELAY_REPLY]
        if isinstance(answer, HopFailure):
            self._lost(answer)
            session.count(tempfail)
            if relay_reply:
                return Verdict(Code.TEMPFAIL, NETWORK_ERROR, (self.route_key,), fact=answer.text)
            return Verdict(Code.TEMPFAIL, RECIPIENT_DENIED, ("451 4.4.2 ", path.address), fact=answer.text)
        session.count(reject if answer.permanent else tempfail)
        code = Code.REJECT if answer.permanent else Code.TEMPFAIL
        number = answer.code if answer.code >= 400 else 451
        if relay_reply:
            return Verdict(code, HOST_REPLY, (f"{number}{answer.last[3:]}",), fact=answer.last)
        enhanced = f"{answer.enhanced} " if answer.enhanced and number == answer.code else ""
        return Verdict(code, RECIPIENT_DENIED, (f"{number} {enhanced}", path.address), fact=answer.last)

    def _lost(self, failure: HopFailure, content: bool = False) -> None:
        """Log the loss of the connection, once."""
        if self.broken:
            return
        self.broken = True
        if failure.kind is not FailureKind.WRITE:
            self._session.log(READ_ERROR, self.route_key, failure.text, failure.errno)
        elif content:
            self._session.log(CHUNK_WRITE_ERROR, failure.text, failure.errno)
        else:
            self._session.log(WRITE_ERROR, self.route_key, failure.text, failure.errno)

    async def transfer(self, head: bytes, spool: Spool) -> HostOutcome:
        """DATA, the content (header section with its empty line, then the body) and the final dot; what came of it."""
        protocol = self.protocol
        settings = self._session.settings
        timeout = settings[options.SMTP_COMMAND_TIMEOUT]
        opened = False
        if protocol is None:
            answer: HopAnswer = HopFailure(FailureKind.READ, "connection closed")
        elif "8BITMIME" not in protocol.extensions and protocol.broken is None and await _eight_bit(head, self._read(spool)):
            answer = HopReply(554, ("554 5.6.3 next hop does not take 8-bit content",))
        else:
            answer = await protocol.data(timeout)
            dialogue.with_next_hop(self._session, self.route_key, b"DATA", answer)
            opened = answer.code == 354
            if opened:
                dot_timeout = settings[SMTP_DOT_TIMEOUT]
                answer = await protocol.send_content(head, self._read(spool), timeout, dot_timeout, plain=spool.plain)
                if isinstance(answer, HopReply):
                    self._session.log(dialogue.DOT_ANSWERED, self.route_key, answer.last)
        if isinstance(answer, HopFailure):
            self._lost(answer, content=opened)
        self.outcome = HostOutcome(self, answer, opened)
        return self.outcome

    def _read(self, spool: Spool) -> Read:
        """A new reader of the body, whose errors are logged."""
        reader = spool.reader()

        def checked(piece: bytes | SpoolError) -> bytes | None:
            if isinstance(piece, SpoolError):
                self._session.log(piece.message, *piece.args)
                return None
            return piece

        def read() -> bytes | Deferred[bytes | None] | None:
            piece = reader.read()
            return piece.addCallback(checked) if isinstance(piece, Deferred) else checked(piece)

        return read

    def report(self, outcome: HostOutcome, outcomes: Sequence[HostOutcome]) -> None:
        """Log what became of the message here; ``outcomes`` are those of all hosts, the first of which speaks for all."""
        if len(outcomes) > 1 and outcome is outcomes[0] and not any(other.opened for other in outcomes):
            self._session.log(ALL_REJECTED_DATA)
        if not outcome.accepted and (isinstance(outcome.answer, HopReply) or any(other.accepted for other in outcomes)):
            self._session.log(REJECTED_MESSAGE, self.route_key, outcome.text)

    async def reset(self) -> None:
        """Make a kept connection ready for the next transaction. One that is inside DATA is lost: its message is withdrawn."""
        protocol = self.protocol
        if protocol is not None and protocol.in_data:
            protocol.abort()
        spoken, self._spoken = self._spoken, False
        self.recipients = []
        self.outcome = None
        if spoken and protocol is not None and protocol.broken is None:
            await protocol.rset(self._session.settings[options.SMTP_COMMAND_TIMEOUT])

    def abort(self) -> None:
        """Cut the connection without QUIT; a message on its way over it is not delivered."""
        if self.protocol is not None:
            self.protocol.abort()

    def close(self) -> None:
        """Be done with the connection: it is kept for others, or ended with QUIT, or inside DATA at once, which withdraws the message."""
        protocol, self.protocol = self.protocol, None
        reached, self._reached = self._reached, None
        outcome, self.outcome = self.outcome, None
        # Both lead back here: without them the memory of a transaction is free as soon as it is over.
        self._transaction = None
        if protocol is None:
            return
        if reached is not None and (outcome is None or outcome.accepted):
            self._forwarder.give_back(reached, self._session.settings)
        else:
            self._forwarder.release(protocol)


class Forwarder:
    """Opens forward connections for every session of a node, and sends messages over them.

    ``policy`` says what TLS a host must offer, by default what its route demands. All connections are opened and given back here.
    """

    def __init__(
        self,
        reactor: Any,
        resolver: Addresses,
        rng: Random,
        tls: TlsContexts | None = None,
        policy: Callable[[Host], TlsPolicy] | None = None,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._rng = rng
        self._tls = tls
        self._policy = policy or _of_route
        self.kept = kept.KeptConnections(reactor)

    def connection(self, session: Session, transaction: Transaction, route: Route, *, queued: bool) -> ForwardConnection:
        """A new connection, not yet connected, for recipients of ``route``; ``queued``: it is the local route."""
        return ForwardConnection(self, session, transaction, route, queued)

    def in_order(self, settings: Settings, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
        """Hosts in the order in which they are tried."""
        return hosts if len(hosts) < 2 else in_order_of_trial(hosts, settings[FORWARD_SELECTION], self._rng)

    async def reach(
        self,
        settings: Settings,
        name: str,
        hosts: Sequence[Host],
        *,
        command_timeout: float | None = None,
        permitted: Callable[[str], bool] | None = None,
        reuse: bool = False,
    ) -> Reached | HopFailure:
        """The first of ``hosts`` that greets with 220, greeted with EHLO or HELO as ``name``, inside TLS where it is offered.

        The failure of the last host, when none does. ``command_timeout`` in seconds, else smtp-command-timeout;
        ``permitted``: which addresses may be contacted. ``reuse``: a kept connection will do, which may be dead and needs
        RSET before its next MAIL.
        """
        failure = HopFailure(FailureKind.CONNECT, "no host")
        for host in hosts:
            found = self.kept.take(self._place(host, name)) if reuse else None
            if found is not None:
                found.protocol.keep_alive = settings[SMTP_KEEP_ALIVE_TIMEOUT]
                return found if found.host is host else attrs.evolve(found, host=host)
            reached = await self._reach(settings, name, host, command_timeout or settings[options.SMTP_COMMAND_TIMEOUT], permitted)
            if isinstance(reached, Reached):
                return reached
            failure = reached
        return failure

    async def _reach(
        self, settings: Settings, name: str, host: Host, command_timeout: float, permitted: Callable[[str], bool] | None
    ) -> Reached | HopFailure:
        policy = self._policy(host)
        use_tls = self._tls is not None
        while True:
            connect_timeout = settings[SMTP_CONNECT_TIMEOUT]
            protocol = await connect(self._reactor, self._resolver, host, connect_timeout, command_timeout, permitted)
            if isinstance(protocol, HopFailure):
                return protocol
            answer = await protocol.ehlo(name.encode(), command_timeout)
            if use_tls and "STARTTLS" in protocol.extensions:
                secured = await self._secure(protocol, name, host, policy, connect_timeout)
                if isinstance(secured, HopFailure) and secured.kind is FailureKind.TLS and policy is TlsPolicy.MAY:
                    protocol.abort()
                    use_tls = False
                    continue
                if isinstance(secured, HopFailure) or protocol.tls:
                    answer = secured
            if policy is not TlsPolicy.MAY and not protocol.tls:
                protocol.quit()
                return HopFailure(FailureKind.TLS, "host has no usable TLS" if isinstance(answer, HopReply) else answer.text)
            protocol.keep_alive = settings[SMTP_KEEP_ALIVE_TIMEOUT]
            # In the clear against our will: the next message is to try for TLS again.
            hoped_for_tls = self._tls is not None and not protocol.tls and "STARTTLS" in protocol.extensions
            return Reached(host, protocol, answer, None if hoped_for_tls else self._place(host, name))

    def _place(self, host: Host, name: str) -> kept.Place:
        policy = self._policy(host)
        return kept.place_of(host, name, policy.value, self._tls is not None)

    async def _secure(self, protocol: NextHopProtocol, name: str, host: Host, policy: TlsPolicy, timeout: float) -> HopAnswer:
        assert self._tls is not None
        try:
            context = self._tls.client(host.host, verify=policy is TlsPolicy.VERIFY)
        except ValueError as error:
            return HopFailure(FailureKind.TLS, str(error))
        return await protocol.starttls(context, name.encode(), timeout)

    def release(self, protocol: NextHopProtocol) -> None:
        """The owner is done with ``protocol``, and nobody else can use it."""
        protocol.quit()

    def give_back(self, reached: Reached, settings: Settings) -> None:
        """The owner is done with a connection on which everything has been accepted."""
        if not self.kept.keep(reached, settings):
            reached.protocol.quit()

    def close(self) -> Deferred[None] | None:
        """End the kept connections. Done when their hosts have said goodbye, or have taken too long."""
        return self.kept.close()

    async def deliver(self, session: Session, transaction: Transaction, connections: Sequence[ForwardConnection]) -> list[HostOutcome]:
        """Send the message to every connection that carries a recipient, all at the same time; what came of each."""
        assert transaction.headers is not None
        assert transaction.spool is not None
        head = transaction.headers.encode() + b"\r\n"
        spool = transaction.spool
        written = spool.finish()
        if written is not None:
            await written
        carrying = [connection for connection in connections if connection.recipients]
        if len(carrying) == 1:
            outcomes = [await carrying[0].transfer(head, spool)]
        else:
            work = [ensureDeferred(connection.transfer(head, spool)) for connection in carrying]
            outcomes = list(await gatherResults(work, consumeErrors=True)) if work else []
        for outcome in outcomes:
            outcome.connection.report(outcome, outcomes)
        return outcomes


async def _eight_bit(head: bytes, read: Read) -> bool:
    """The message has octets outside US-ASCII. One that cannot be read has none: that is found out again when it is sent."""
    if not head.isascii():
        return True
    while True:
        piece = read()
        if isinstance(piece, Deferred):
            piece = await piece
        if not piece:
            return False
        if not piece.isascii():
            return True


def _rcpt_line(address: str) -> bytes:
    return b"RCPT TO:<" + address.encode() + b">"


def _of_route(host: Host) -> TlsPolicy:
    """What the route of ``host`` demands (attribute ``TLS:`` of the route map)."""
    return TlsPolicy(host.tls) if host.tls else TlsPolicy.MAY


def without_detail(path: Path) -> str:
    """The address of ``path`` without its plus-detail, otherwise as written."""
    local = path.local
    bare = path.mailbox if local.startswith('"') else local[: local.index("+", 1)]
    return bare + path.address[len(local) :]
