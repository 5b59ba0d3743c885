"""One client's conversation from accept to its ``end`` line, in the order in which it happens.

The wire below it knows octets only; the commands beside it know one command each; the pipeline asks the filters. What
stands here is the life cycle: who the client is, the banner, the command loop, how a reply goes out, and the end.
Source: spec chapter session, 1 and 2.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from smtpf import waiting
from smtpf.dns.reverse import identify
from smtpf.journal.message import err, info
from smtpf.maps.routes import Route
from smtpf.message.spool import SAVE_DATA
from smtpf.pipeline import CONTINUE, Code, Stage, Verdict
from smtpf.reply import Answer, Reply, render
from smtpf.settings.process_options import SMTP_LINGER
from smtpf.smtp import commands, counters, delivery, dialogue, early_talk, outgoing, replies, summary, utf8
from smtpf.smtp import options as opt
from smtpf.smtp.addresses import is_local, plain_address
from smtpf.smtp.identifiers import TransactionIds
from smtpf.smtp.session import ClientFlag, MsgFlag, Recipient, Session, State, Transaction
from smtpf.smtp.slots import ReplySlots
from smtpf.smtp.wire import MAX_LINE, Claim, Disconnected, LineTooLong, NotWritten, TimedOut, Wire
from smtpf.stats import general

if TYPE_CHECKING:
    from smtpf.smtp.chunking import Chunking
    from smtpf.smtp.engine import Engine
    from smtpf.smtp.forward import ForwardConnection
    from smtpf.smtp.reception import Reception

OUT_OF_MEMORY = err(
    538,
    "out of memory %s(%lu)",
    "A session was ended because the system gave no more memory. Give the machine more, or lower server-max-threads.",
)
RESOURCES = err(
    556,
    "resources error %s(%lu): %s (%d)",
    "No descriptors are left for another session; the client was told to come back. Raise run-open-file-limit.",
)
CLIENT_IO = err(
    639, "client %s [%s] I/O error: %s (%d)", "The client went away or was silent for too long. Common; nothing to do.",
    fields=("client", "address", "error", "errno"),
)  # fmt: skip
SERVER_IO = err(
    628, "server I/O error: %s (%d)", "A reply could not be written to the client. Common; nothing to do.", fields=("error", "errno")
)
DROPPING = info(
    644, "dropping %s [%s] after %d errors", "smtp-drop-after: the client was refused too often.", fields=("client", "address", "errors")
)
PTR_DELEGATION = info(
    635, "client [%s] has CNAME/PTR delegation %s", "The reverse name of an IPv4 client is delegated by CNAME (RFC 2317)."
)
PTR_DELEGATION_6 = info(636, "client [%s] has CNAME/PTR delegation %s", "The reverse name of an IPv6 client is delegated by CNAME.")
Told = Callable[[Answer], None]
"""Writes the summary line of a reply."""
LOCALHOST_NAME = "localhost.localhost"
KILL_GRACE = 1.0
"""Seconds a killed session's client has to read why."""
BANNER_HOLD = 0.5
"""Seconds an unknown client must keep silent before its banner."""


class Conversation:
    """Drives one Session over one Wire."""

    def __init__(self, engine: Engine, reception: Reception, interface_name: str, wire: Wire) -> None:
        self.engine = engine
        self.wire = wire
        self._reception = reception
        self._interface_name = interface_name
        self.forwards: list[ForwardConnection] = []
        """Forward connections of the transaction."""
        self.queue: ForwardConnection | None = None
        """The connection over which all mail of an authenticated client goes."""
        self.answering: tuple[Transaction, Recipient | None] | None = None
        """What the next reply is about, when it is about a sender or a recipient."""
        self.chunking: Chunking | None = None
        """The message that comes by BDAT, from its first chunk to the end of the transaction."""
        self.auth_failures = 0
        self.relay_by_auth = False
        """The client is a relay only because it has authenticated."""
        self.first_sender_domain: str | None = None
        self._reject_delay = 1.0
        self.ending = False
        self.relaying = False
        """The message is on its way to the next hops: not to be cut."""
        self.killed: Verdict | None = None
        self.last_input = engine.reactor.seconds()
        """Reactor seconds of the last command."""
        self.transport_address = ""
        """Address of the transport peer, whatever XCLIENT says; behind a PROXY header the one it claims."""
        self.admitted = False
        """The session has begun: it ends with its ``end`` line."""

    # The wire tells.

    def connected(self) -> None:
        waiting.run(self._live(), lambda nothing: None, self._broken)

    def disconnected(self) -> None:
        """The loop hears of it from the wire at its next wait."""

    # The life of a session.

    async def _live(self) -> None:
        engine = self.engine
        peer, local = self.wire.transport.getPeer(), self.wire.transport.getHost()
        claim = self.wire.claim or Claim()
        address = self.transport_address = claim.source or plain_address(getattr(peer, "host", "127.0.0.1"))
        local_address = claim.destination or plain_address(getattr(local, "host", "127.0.0.1"))
        session = self.session = Session(
            engine.ids.next(engine.now()), address, engine.settings.current, engine.journal, engine.stats, engine.reactor.seconds()
        )
        session.slots = ReplySlots(session)
        session.flags.add(ClientFlag.NO_PTR)
        if session.ip.version == 6:
            session.flags.add(ClientFlag.IPV6)
        session.interface_address = local_address
        session.port = getattr(peer, "port", 0)
        session.interface_port = getattr(local, "port", 0)
        session.interface_name = self._interface_name
        session.rest = self._rest
        session.wait = self.wire.rest
        session.early_input = lambda: (self.wire.pending, self.wire.peek(early_talk.SHOWN))
        self.tids = TransactionIds(session.sid, engine.rng.randrange(62 * 62))
        engine.conversations[session.sid] = self
        try:
            await self._reception.admit(self)
            if not self._descriptors_left():
                await self._refuse_for_descriptors()
                return
            verdict = await engine.pipeline.run(Stage.ACCEPT, session)
            if verdict.negative:
                await self.respond(verdict)
                return
            self.admitted = True
            claimed = self.wire.claim is not None
            session.really_local = not claimed and is_local(address) and is_local(local_address)
            await self.classify(claimed=claimed)
            summary.start(session, engine.workers, engine.sessions, self._reception.this_second)
            if await self.greet():
                await self._loop()
        except Disconnected as gone:
            self._lost(gone)
        except TimedOut:
            self._timed_out()
        except MemoryError:
            self._out_of_memory()
        except Exception:
            self._fault(Failure())
        finally:
            await self._end()

    def _fault(self, failure: Failure) -> None:
        """A fault of ours: log it and answer 421; the session ends."""
        session = self.session
        self.engine.journal.failure(failure, session.sid, "conversation")
        session.slots.delayed = None
        if self.wire.gone is None:
            self.wire.write(render(replies.INTERNAL_ERROR, (), session.sid).encode())

    def _out_of_memory(self) -> None:
        """Say so with as little as possible; the client comes again."""
        session = self.session
        frames = traceback.extract_tb(sys.exc_info()[2])
        module, line = (frames[-1].filename.rpartition("/")[2], frames[-1].lineno) if frames else ("", 0)
        session.log(OUT_OF_MEMORY, module, line)
        session.slots.delayed = None
        if self.wire.gone is None:
            self.wire.write(render(replies.RESOURCES_EXCEEDED, (), session.sid).encode())

    def _broken(self, failure: Failure) -> None:
        """A fault of ours at the very end, or before the session began."""
        self.engine.journal.failure(failure, doing="end of a session")
        session: Session | None = getattr(self, "session", None)
        if session is None or self.engine.conversations.pop(session.sid, None) is not None:
            self._reception.released()
        self.wire.close(0)

    def _descriptors_left(self) -> bool:
        return self.engine.descriptor_limit > 8 * len(self.engine.conversations) + 10

    async def _refuse_for_descriptors(self) -> None:
        self.admitted = True
        self.session.log(RESOURCES, "conversation", 0, os.strerror(errno.EMFILE), errno.EMFILE)
        await self.write(render(replies.RESOURCES_EXCEEDED, (), self.session.sid))

    async def classify(self, *, claimed: bool, relay_by_name: bool = True) -> None:
        """Settle address, reverse name and class. A claimed address (PROXY, XCLIENT) never becomes ``localhost``, nor by it a relay."""
        session, engine = self.session, self.engine
        session.spoken_for = claimed
        flags = session.flags
        if not claimed and is_local(session.address):
            flags.add(ClientFlag.LOCALHOST)
            session.count(counters.CONNECT_LOCALHOST)
        pretender = claimed and is_local(session.address)
        if not pretender:
            route = await engine.routes.for_client_address(session.address)
            if isinstance(route, Route) and route.relay:
                flags.add(ClientFlag.RELAY)
                session.count(counters.CONNECT_RELAY)
        if session.private:
            session.count(counters.CONNECT_LAN)
        session.count(counters.CLIENTS)
        session.stats.raise_to(general.HIGH_CONNECTIONS, engine.sessions)
        if ClientFlag.LOCALHOST in flags:
            session.name = LOCALHOST_NAME
            flags.discard(ClientFlag.NO_PTR)
        elif pretender:
            flags.add(ClientFlag.FORGED)
        elif not session.name:
            await self.look_up_name()
        if relay_by_name and ClientFlag.RELAY not in flags and ClientFlag.FORGED not in flags and session.name:
            route = await engine.routes.for_client_name(session.name)
            if isinstance(route, Route) and route.relay:
                flags.add(ClientFlag.RELAY)
                session.count(counters.CONNECT_RELAY)
        if engine.passed_grey_list is not None and not session.usual_suspect and await engine.passed_grey_list(session):
            flags.add(ClientFlag.PASSED_GREY_LIST)

    async def look_up_name(self) -> None:
        """Reverse DNS and the flags that follow from it (1.5)."""
        session = self.session
        engine = self.engine
        found = await identify(engine.resolver, session.address, engine.domains, relay=session.relay, meanwhile=self._look_ahead)
        flags = session.flags
        for target in found.delegations:
            session.log(PTR_DELEGATION_6 if session.ip.version == 6 else PTR_DELEGATION, session.address, target)
        session.name = found.name
        for flag, on in (
            (ClientFlag.NO_PTR, found.no_ptr),
            (ClientFlag.NO_PTR_ERROR, found.no_ptr_error),
            (ClientFlag.FORGED, found.forged),
            (ClientFlag.PTR_MULTIDOMAIN, found.ptr_multidomain),
            (ClientFlag.IP_IN_PTR, found.ip_in_ptr),
        ):
            if on:
                flags.add(flag)
            else:
                flags.discard(flag)
        if found.no_ptr_error:
            session.count(counters.CLIENT_PTR_REQUIRED_ERROR)
        if found.no_ptr:
            session.count(counters.CLIENT_PTR_REQUIRED)

    def _look_ahead(self, name: str) -> None:
        """The client says that it is ``name``; whether it is will be known a moment later."""
        begin = self.engine.look_ahead
        if begin is not None:
            waiting.in_background(begin(self.session, name), self._look_ahead_failed)

    def _look_ahead_failed(self, failure: Failure) -> None:
        self.engine.journal.failure(failure, self.session.sid, "look-ups ahead")

    async def greet(self) -> bool:
        """The connect stage, then the banner or what takes its place. False when the session is over."""
        session = self.session
        verdict = await self.engine.pipeline.run(Stage.CONNECT, session)
        session.slots.immediate = None
        if verdict.negative:
            await self.respond(verdict)
            if verdict.code is Code.DROP:
                return False
            session.state = State.SINK
            return True
        hold = session.greet_pause is None and not self._may_talk_early() and self.wire.gone is None
        if hold and await self.wire.rest(BANNER_HOLD, until_input=True):
            self._note_early_talk()
        await self.write(self._banner())
        return True

    async def _refused_now(self) -> bool:
        """Answer with an immediate refusal that is waiting, if there is one, and end."""
        pending = self.session.slots.immediate
        if pending is None or not pending.negative:
            return False
        self.session.slots.immediate = None
        await self.respond(pending)
        return True

    def _banner(self) -> Answer:
        session = self.session
        e = "E" if session.settings[opt.SMTP_ENABLE_ESMTP] else ""
        if session.usual_suspect or session.grey:
            return render(replies.BANNER_SHORT, (session.interface_name, e), session.sid)
        lines = self.engine.texts.welcome
        first = render(replies.BANNER, (" " if len(lines) == 1 else "-", session.interface_name, lines[0], e), session.sid).first
        if len(lines) == 1:
            return Answer((first,), replies.BANNER.number)
        between = (f"220-{line}" for line in lines[1:-1])
        return Answer((first, *between, f"220 {lines[-1]}"), replies.BANNER.number)

    # The command loop.

    async def _loop(self) -> None:
        session = self.session
        while not self.ending:
            try:
                line = await self.wire.line(self.command_timeout())
                session.octets += len(line)
                if not await self._one_command(line):
                    return
            except LineTooLong:
                session.count(counters.COMMAND_LENGTH)
                await self.respond(_refusal(replies.COMMAND_TOO_LONG, MAX_LINE))
                return

    async def _one_command(self, line: bytes) -> bool:
        """Take one command line to its reply. False when the session is over."""
        session = self.session
        if len(line) > 512 and session.settings[opt.RFC2821_COMMAND_LENGTH]:
            session.count(counters.COMMAND_LENGTH)
            await self.respond(_refusal(replies.COMMAND_TOO_LONG, len(line)))
            return False
        text = commands.decode(line)
        if text is None and not line.isascii():
            text = utf8.decode(session, line)
        if text is None:
            session.count(counters.NON_ASCII)
            await self.respond(_refusal(replies.NON_PRINTABLE, session.name, session.address))
            return False
        verb, argument = commands.split(text)
        if verb != verb.upper():
            session.flags.add(ClientFlag.SMTP_LOWER_CASE)
            verb = verb.upper()
        if session.slots.immediate is not None and verb != "DATA" and await self._refused_now():
            return False
        if session.command_pause and not session.known and not await self._pause_before(verb):
            return False
        self.last_input = self.engine.reactor.seconds()
        dialogue.received(session, verb, text, commands.is_known(self, verb))
        outcome = await commands.run(self, verb, argument, text)
        if outcome is not None:
            await self.respond(outcome)
        if self.ending:
            return False
        after = session.settings[opt.SMTP_DROP_AFTER]
        if 0 < after <= session.reject_count:
            session.log(DROPPING, session.name, session.address, session.reject_count)
            session.count(counters.DROP_AFTER)
            return False
        return True

    def command_timeout(self) -> float:
        """Seconds to wait for a command."""
        settings = self.session.settings
        timeout = settings[opt.SMTP_COMMAND_TIMEOUT]
        if ClientFlag.BLACK in self.session.flags:
            black = settings[opt.SMTP_COMMAND_TIMEOUT_BLACK]
            if 0 <= black < timeout:
                return black
        return timeout

    async def _rest(self, seconds: float) -> bool:
        return await self.wire.rest(seconds, until_input=True)

    async def _pause_before(self, verb: str) -> bool:
        """CommandPause: False when the client spoke meanwhile and was refused at once."""
        session = self.session
        pause = session.command_pause or 0
        noticed = ClientFlag.PIPELINING in session.flags
        if not await self.wire.rest(pause / 1000, until_input=not noticed) or noticed:
            return True
        verdict = early_talk.refusal_in_pause(session, verb, pause)
        if verdict is not None:
            session.slots.take(verdict)
        return not await self._refused_now()

    # Replies.

    async def respond(self, outcome: Verdict | Answer, told: Told | None = None) -> None:
        """Send a command's reply with all that goes with it; a DROP verdict ends the session. ``told`` as in :meth:`write`."""
        if isinstance(outcome, Answer):
            await self.write(outcome)
            return
        await self.write(self.rendered(outcome), outcome, told)
        if outcome.code is Code.DROP and (not self.session.trusted or not self.session.helo):
            self.ending = True

    def rendered(self, verdict: Verdict) -> Answer:
        """The reply of ``verdict`` before it is dressed for the wire: what the summary lines show."""
        assert verdict.reply is not None
        return render(verdict.reply, verdict.args, self.session.sid)

    async def write(self, answer: Answer, verdict: Verdict = CONTINUE, told: Told | None = None) -> None:
        """Count, delay, decorate and write one reply (2.3).

        The lines of the log follow the reply, so that the client need not wait for them: first that of ``told(answer)``, for a reply
        that is no refusal, then those of the dialogue.
        """
        session = self.session
        dressed = answer
        if answer.negative:
            # What a client sends as a command may be a password that nobody asked for; the log must not hold it.
            unknown = verdict.reply is replies.UNKNOWN_COMMAND
            session.last_reject = render(replies.UNKNOWN_COMMAND, ("?",), session.sid).first if unknown else answer.first
            if verdict.reply is not replies.EHLO_NOT_SUPPORTED:
                session.reject_count += 1
            if verdict.reply in replies.PROTOCOL_ERRORS and session.transaction is not None:
                session.transaction.flags.add(MsgFlag.POLICY)
            if session.settings[opt.SMTP_REJECT_DELAY] and not session.usual_suspect:
                await self._delay_refusal()
            dressed = outgoing.with_words(answer, self._addition(answer))
        self.answering = None
        dressed = outgoing.decorate(session, dressed, self.engine.texts.reject)
        timeout = self.command_timeout()
        slowly = session.settings[opt.SMTP_SLOW_REPLY] and not session.known
        waiting: Awaitable[None] | None = None
        try:
            if slowly:
                waiting = outgoing.send_slowly(self.wire, dressed.encode(), timeout)
            else:
                waiting = self.wire.send(dressed.encode(), timeout)
        finally:
            if told is not None:
                told(answer)
            dialogue.sent(session, dressed, verdict.reply is replies.UNKNOWN_COMMAND)
            if self.wire.pending and session.state not in (State.DATA, State.QUIT) and not self._may_talk_early():
                self._note_early_talk()
        if waiting is not None:
            await waiting

    def _addition(self, answer: Answer) -> str:
        """Words for a permanent refusal of the sender, a recipient or what follows in the transaction."""
        ask = self.engine.addition
        if ask is None or not answer.first.startswith("5"):
            return ""
        transaction, recipient = self.answering or (self.session.transaction, None)
        return ask(self.session, transaction, recipient) if transaction is not None else ""

    async def _delay_refusal(self) -> None:
        await self.wire.rest(min(self._reject_delay, outgoing.MAX_REJECT_DELAY))
        if self._reject_delay < outgoing.MAX_REJECT_DELAY:
            self._reject_delay *= 2
            if self._reject_delay >= outgoing.MAX_REJECT_DELAY:
                self.session.count(counters.REJECT_DELAY)

    # Early talkers.

    def _may_talk_early(self) -> bool:
        session = self.session
        if session.known or ClientFlag.PIPELINING in session.flags:
            return True
        if not session.esmtp or session.state is State.CONN:
            return False
        if session.command_pause is not None:
            return session.command_pause == 0
        return session.settings[opt.RFC2920_PIPELINING]

    def _note_early_talk(self) -> None:
        """Steps 3 and 4 of 2.5, when there really is input that is more than an empty line."""
        if self.wire.peek(1) not in (b"", b"\r", b"\n"):
            self.session.slots.take(early_talk.refusal(self.session))

    def note_injection(self) -> None:
        """Octets wait behind a command that must be the last one in the clear."""
        early_talk.note(self.session)

    # Transactions.

    def forget_authentication(self) -> None:
        """TLS has begun, or a front end speaks for another client: nobody has authenticated yet (RFC 3207 4.2)."""
        session = self.session
        session.auth_id = ""
        session.flags.discard(ClientFlag.AUTH)
        if self.relay_by_auth:
            self.relay_by_auth = False
            session.flags.discard(ClientFlag.RELAY)
        if self.queue is not None:
            self.queue.close()
            self.queue = None

    def begin_transaction(self, transaction: Transaction) -> None:
        self.session.transaction = transaction

    async def end_transaction(self) -> None:
        """The rset stage, the route counts, and the end of the forward connections."""
        session = self.session
        transaction = session.transaction
        if transaction is None:
            return
        self.chunking = None
        try:
            await self.engine.pipeline.run(Stage.RSET, session, transaction)
        finally:
            await self._let_go(transaction)

    async def _let_go(self, transaction: Transaction) -> None:
        """Count the transaction, and give back all that it held, whatever the rset stage came to."""
        session = self.session
        delivery.count_routes(self, transaction)
        session.transaction = None
        retest = session.settings[opt.MAIL_RETEST_CLIENT] and session.forwarded_count > 0
        session.slots.end_transaction(retest)
        forwards, self.forwards = self.forwards, []
        for forward in forwards:
            if forward is not self.queue:
                forward.close()
        if transaction.spool is not None:
            problem = await transaction.spool.close(session.settings[SAVE_DATA])
            if problem is not None:
                session.log(problem.message, *problem.args)

    # The end.

    def kill(self, verdict: Verdict) -> None:
        """Cut the session from outside; it ends like an I/O error, and nothing it has sent is delivered.

        The client reads ``verdict``'s reply when it reads at all.
        """
        self.killed = verdict
        assert verdict.reply is not None
        for forward in (*self.forwards, *((self.queue,) if self.queue is not None else ())):
            forward.abort()
        if not self.wire.congested:
            self.wire.write(render(verdict.reply, verdict.args, self.session.sid).encode())
        self.ending = True
        self.engine.reactor.callLater(KILL_GRACE, self.wire.abort)

    def stop(self) -> None:
        """The node ends: the client hears 421 where it waits for nothing, and the session ends after the command in hand."""
        if not self.ending and self.wire.idle:
            self.wire.write(render(replies.NOT_AVAILABLE, (), self.session.sid).encode())
            self.wire.abort_read()
        self.ending = True

    def _lost(self, gone: Disconnected) -> None:
        session = self.session
        session.flags.add(ClientFlag.IO_ERROR)
        if isinstance(gone, NotWritten):
            session.count(counters.SERVER_IO_ERROR)
            session.log(SERVER_IO, str(gone), gone.errno)
            return
        session.broken = gone.errno != 0
        if gone.errno != errno.ETIMEDOUT:
            session.count(counters.CLIENT_IO_ERROR)
        if not isinstance(gone, delivery.LostInData):
            session.log(CLIENT_IO, session.name, session.address, str(gone), gone.errno)

    def _timed_out(self) -> None:
        session = self.session
        session.flags.add(ClientFlag.IO_ERROR)
        session.broken = True
        session.count(counters.CLIENT_TIMEOUT)
        session.log(CLIENT_IO, session.name, session.address, os.strerror(errno.ETIMEDOUT), errno.ETIMEDOUT)
        if self.wire.gone is None:
            self.wire.write(render(replies.NOT_AVAILABLE, (), session.sid).encode())

    async def _end(self) -> None:
        session, engine = self.session, self.engine
        if self.admitted:
            if self.chunking is not None and self.chunking.refused is None and session.transaction is not None:
                summary.message(session, session.transaction, None)
            if ClientFlag.EHLO_NO_HELO in session.flags:
                session.count(counters.EHLO_NO_HELO)
            session.stats.add(general.TOTAL_KB, session.octets // 1024 + 1)
            await self.end_transaction()
            if self.queue is not None:
                self.queue.close()
            seconds = int(engine.reactor.seconds() - session.started)
            session.stats.raise_to(general.HIGH_SESSION_TIME, max(0, seconds))
            summary.end(session, seconds)
            if session.state is not State.QUIT:
                session.count(counters.DROPPED)
            await engine.pipeline.run(Stage.CLOSE, session)
        engine.conversations.pop(session.sid, None)
        self._reception.released()
        self.wire.close(session.settings[SMTP_LINGER])
        session.part()


def _refusal(reply: Reply, *args: object) -> Verdict:
    """A protocol error that ends the session."""
    return Verdict(Code.REJECT, reply, args)
