"""The wire towards a next hop: one SMTP client connection, one command and one reply at a time.

A postmaster meets this module in the texts of #482 and #486: it says why a connection to a next hop ended. For the
programmer it stands under forwarding, call-ahead, call-back, AUTH and ETRN: it knows replies, limits and time-outs,
and no policy. What can go wrong on the network is a value (``HopFailure``), never an exception.

A next hop is not trusted. A reply line and the lines of a reply are bounded, a reply that nobody asked for ends the
connection (so nothing said in the clear behind the answer to STARTTLS is ever believed), and no octet of a reply can
reach a log or another reply as a control character. Source: RFC 5321 4.2 and 4.5.3, RFC 3207, spec chapter session, 6.4.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, IReactorTime
from twisted.mail.smtp import ESMTPClient
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpf.smtp.dot_stuffing import DotWriter
from smtpf.smtp.straight import StraightWriter

MAX_REPLY_LINE = 1000
"""Octets of one reply line without its line end; RFC 5321 allows 512, some hosts write more."""
MAX_REPLY_LINES = 100
"""Lines of one reply; the longest answers to EHLO have some thirty."""
MAX_QUEUED_COMMANDS = 4
"""Commands that may wait for the reply to a keep-alive."""
KEEP_ALIVE_TIMEOUT = 10.0
"""Seconds a host has to answer the NOOP of a keep-alive, and to answer QUIT."""
WRITE_SIZE = 256 * 1024
"""Octets of content that are written at once."""

_SAFE = bytes(octet if octet == 9 or 32 <= octet < 127 else ord("?") for octet in range(256))
_NEVER = float("inf")


class FailureKind(Enum):
    """At what a connection to a next hop failed."""

    CONNECT = "connect"
    READ = "read"
    WRITE = "write"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    TLS = "tls"
    CONTENT = "content"
    """Our own copy of the message could not be read."""


@attrs.frozen
class HopFailure:
    """Why there is no reply. ``text`` has no control characters; ``errno`` is 0 when the system gave none."""

    kind: FailureKind
    text: str
    errno: int = 0
    reply: HopReply | None = None
    """The banner, when the host was reached and said something else than 220."""

    @property
    def code(self) -> int:
        """0, so that a failure can be compared where a reply code is expected."""
        return 0

    @property
    def positive(self) -> bool:
        return False


@attrs.frozen
class HopReply:
    """A complete reply. The lines are as received, without line end; octets outside printable ASCII are ``?``."""

    code: int
    lines: tuple[str, ...]

    @property
    def last(self) -> str:
        """The last line: the one that is logged and relayed."""
        return self.lines[-1]

    @property
    def positive(self) -> bool:
        """2xy."""
        return 200 <= self.code < 300

    @property
    def permanent(self) -> bool:
        """5xy."""
        return self.code >= 500

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the last line, such as ``5.1.1``, else empty (RFC 3463)."""
        word = self.lines[-1][4:].partition(" ")[0]
        parts = word.split(".")
        if len(parts) == 3 and word[0] == self.lines[-1][0] and all(part.isdigit() and len(part) <= 3 for part in parts):
            return word
        return ""

    @property
    def text(self) -> str:
        """The last line behind reply code and enhanced status code."""
        rest = self.lines[-1][4:]
        enhanced = self.enhanced
        return rest[len(enhanced) :].lstrip(" ") if enhanced else rest


HopAnswer = HopReply | HopFailure

Read = Callable[[], bytes | Deferred[bytes | None] | None]
"""Gives the next piece of a message, empty at its end, None when it cannot be read."""


@implementer(IPushProducer)
class _Flow:
    """Told by the transport when its buffer is full and when it has drained."""

    def __init__(self, protocol: NextHopProtocol) -> None:
        self._protocol = protocol
        self.drained: Deferred[None] | None = None

    def pauseProducing(self) -> None:
        if self.drained is None:
            self.drained = Deferred()

    def resumeProducing(self) -> None:
        drained, self.drained = self.drained, None
        if drained is not None:
            self._protocol.flowing()
            drained.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()


@implementer(IHandshakeListener)
class NextHopProtocol(StraightWriter, ESMTPClient):
    """One connection to a next hop.

    Every command is a single write and answers with a Deferred of a reply or of a failure. Exactly one command is
    outstanding, unless several are given to ``pipelined``. After a failure the connection is gone, ``broken`` says why,
    and every later command gets it at once.
    """

    # The base class routes every attribute through Python code for the sake of one deprecated name.
    __setattr__ = object.__setattr__

    transport: Any

    def __init__(self, clock: IReactorTime, greeting_timeout: float) -> None:
        # The stock class's __init__ is left out: what it makes serves a reader that never runs here.
        self._clock = clock
        self._greeting_timeout = greeting_timeout
        self.greeting: Deferred[HopAnswer] = Deferred()
        """Fires with the banner."""
        self.broken: HopFailure | None = None
        self.extensions: dict[str, str] = {}
        """Keyword (upper case) to parameters of the answer to EHLO; empty after HELO."""
        self.esmtp = False
        """The last greeting was EHLO, and it was accepted."""
        self.banner = ""
        """The first line of the banner behind its code."""
        self.address = ""
        """Address of the peer; the path of a UNIX socket."""
        self.in_data = False
        """354 has been heard, and the reply to the final dot has not."""
        self.tls = False
        self.keep_alive = 0.0
        """Seconds of silence after which NOOP is sent; 0 sends none."""
        self.lost: Deferred[None] = Deferred()
        """Fires when the socket is closed."""
        self.transactions = 0
        """MAIL commands so far; counted by who sends them."""
        self._ahead: deque[tuple[float, Deferred[HopAnswer]]] = deque()
        """Commands that have been sent behind the one whose reply is awaited."""
        self._buffer = b""
        self._lines: list[str] = []
        self._waiting: Deferred[HopAnswer] | None = None
        self._queue: deque[tuple[bytes, float, Deferred[HopAnswer]]] = deque()
        self._handshake: Deferred[HopFailure | None] | None = None
        self._flow: _Flow | None = None
        self._timer: Any = None
        self._timer_at = 0.0
        self._deadline = _NEVER

    # The connection

    def connectionMade(self) -> None:
        transport = self.transport
        no_delay = getattr(transport, "setTcpNoDelay", None)
        if no_delay is not None:
            no_delay(True)
        self.begin_straight()
        peer = transport.getPeer()
        self.address = getattr(peer, "host", "") or _path(getattr(peer, "name", ""))
        self._waiting = self.greeting
        self._expect(self._greeting_timeout)

    def connectionLost(self, reason: Failure = ConnectionDone()) -> None:  # type: ignore[assignment]  # noqa: B008
        if self.broken is None:
            self._end(self._loss(reason))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.lost.callback(None)

    def _loss(self, reason: Failure) -> HopFailure:
        error = getattr(reason.value, "osError", None)
        if self._handshake is not None:
            return HopFailure(FailureKind.TLS, _tls_reason(reason))
        writing = self._flow is not None
        if isinstance(error, int) and error:
            kind = FailureKind.WRITE if writing or error == errno.EPIPE else FailureKind.READ
            return HopFailure(kind, os.strerror(error), error)
        if writing:
            return HopFailure(FailureKind.WRITE, os.strerror(errno.EPIPE), errno.EPIPE)
        if isinstance(reason.value, ConnectionDone):
            return HopFailure(FailureKind.READ, "connection closed by host")
        return HopFailure(FailureKind.READ, os.strerror(errno.ECONNRESET), errno.ECONNRESET)

    def _end(self, failure: HopFailure) -> None:
        """Everybody who waits hears ``failure``; nothing is sent any more."""
        self.broken = failure
        self._buffer = b""
        self._lines = []
        self._deadline = _NEVER
        waiting, self._waiting = self._waiting, None
        queue, self._queue = self._queue, deque()
        ahead, self._ahead = self._ahead, deque()
        handshake, self._handshake = self._handshake, None
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.stopProducing()
        if handshake is not None:
            handshake.callback(failure)
        if waiting is not None:
            waiting.callback(failure)
        for _, deferred in ahead:
            deferred.callback(failure)
        for _, _, deferred in queue:
            deferred.callback(failure)

    def _close(self, failure: HopFailure) -> None:
        if self.broken is None:
            self._end(failure)
            self.transport.abortConnection()

    def _fail(self, kind: FailureKind, text: str, number: int = 0) -> None:
        self._close(HopFailure(kind, text, number))

    def abort(self) -> None:
        """Close at once, whatever is under way: so is a message withdrawn that has not got its final dot."""
        self._fail(FailureKind.READ, "connection closed")

    def quit(self) -> None:
        """End the connection politely, without making anybody wait; inside DATA it is aborted."""
        if self.broken is not None:
            return
        if self.in_data or self._waiting is not None or self._handshake is not None:
            self.abort()
            return
        self.command(b"QUIT", KEEP_ALIVE_TIMEOUT).addCallback(self._goodbye)

    def _goodbye(self, answer: HopAnswer) -> None:
        if self.broken is None:
            self._end(HopFailure(FailureKind.READ, "connection closed"))
            self.transport.loseConnection()
            self._expect(KEEP_ALIVE_TIMEOUT)

    @property
    def at_rest(self) -> bool:
        """The connection lives, and nothing is under way on it in either direction."""
        under_way = self.in_data or self._waiting is not None or self._handshake is not None or self._flow is not None
        return self.broken is None and not under_way

    def is_silent(self) -> bool:
        """Nothing that nobody has read yet, not even the end of the connection, has arrived from the host."""
        fileno = getattr(self.transport, "fileno", None)
        if fileno is None:
            return True
        arrived = select.poll()
        arrived.register(fileno(), select.POLLIN)
        return not arrived.poll(0)

    def stay_idle(self) -> None:
        """No command will come for a while, and no NOOP is wanted meanwhile; whatever the host says ends the connection."""
        self.keep_alive = 0.0
        self._deadline = _NEVER

    # Time

    def _expect(self, timeout: float) -> None:
        """Something must happen within ``timeout`` seconds.

        The timer is left running from command to command and looks at the deadline when it fires, so that a
        transaction costs one or two calls of the reactor's clock queue, and not one for each command.
        """
        deadline = self._deadline = self._clock.seconds() + timeout
        if self._timer is None:
            self._set_timer(min(timeout, self.keep_alive) if self.keep_alive > 0 else timeout)
        elif self._timer_at > deadline:
            # Not moved: the reactor looks through all its delayed calls for one that is to fire sooner.
            self._timer.cancel()
            self._set_timer(timeout)

    def _set_timer(self, seconds: float) -> None:
        self._timer = self._clock.callLater(seconds, self._tick)
        self._timer_at = self._timer.getTime()

    def _tick(self) -> None:
        self._timer = None
        left = self._deadline - self._clock.seconds()
        if left == _NEVER:
            return
        if left > 0:
            self._set_timer(left)
        elif self.broken is not None:
            self.transport.abortConnection()
        elif self._waiting is not None or self._handshake is not None or self._flow is not None:
            kind = FailureKind.TIMEOUT if self._handshake is None else FailureKind.TLS
            self._fail(kind, os.strerror(errno.ETIMEDOUT), errno.ETIMEDOUT)
        elif self.keep_alive > 0:
            self.command(b"NOOP", KEEP_ALIVE_TIMEOUT).addCallback(self._kept_alive)

    def _kept_alive(self, answer: HopAnswer) -> None:
        if isinstance(answer, HopReply) and not answer.positive:
            self._fail(FailureKind.PROTOCOL, answer.last)

    def _rest(self) -> None:
        """Nothing is outstanding."""
        if self.keep_alive > 0 and not self.in_data:
            self._expect(self.keep_alive)
        else:
            self._deadline = _NEVER

    # Replies

    def dataReceived(self, data: bytes) -> None:
        if self.broken is not None:
            return
        if self._buffer:
            data = self._buffer + data
        position = 0
        while True:
            if self._waiting is None:
                self._unsolicited(data)
                return
            end = data.find(b"\n", position)
            if end < 0:
                if len(data) - position > MAX_REPLY_LINE:
                    self._fail(FailureKind.PROTOCOL, "reply line too long")
                    return
                self._buffer = data[position:]
                return
            if end - position > MAX_REPLY_LINE + 1:
                self._fail(FailureKind.PROTOCOL, "reply line too long")
                return
            line = data[position : end - 1] if end > position and data[end - 1] == 13 else data[position:end]
            position = end + 1
            mark = line[3:4]
            if len(line) < 3 or not line[:3].isdigit() or line[0] not in b"2345" or mark not in (b" ", b"", b"-"):
                self._fail(FailureKind.PROTOCOL, f"not an SMTP reply: {_text(line[:80])}")
                return
            lines = self._lines
            lines.append(_text(line))
            if lines[0][:3] != lines[-1][:3]:
                self._fail(FailureKind.PROTOCOL, "reply with several codes")
                return
            if mark != b"-":
                break
            if len(lines) >= MAX_REPLY_LINES:
                self._fail(FailureKind.PROTOCOL, "reply with too many lines")
                return
        rest = data[position:]
        if rest and not self._ahead:
            self._unsolicited(rest)
            return
        self._buffer = b""
        self._lines = []
        self._heard(HopReply(int(lines[0][:3]), tuple(lines)))
        if rest:
            self.dataReceived(rest)

    def _unsolicited(self, data: bytes) -> None:
        """A reply to nothing. A host that says 421 is closing; anything else is an attempt to be ahead of us."""
        line = _text(data[:MAX_REPLY_LINE].partition(b"\n")[0].rstrip(b"\r"))
        kind = FailureKind.READ if line[:3] == "421" else FailureKind.PROTOCOL
        self._fail(kind, line if kind is FailureKind.READ else f"unsolicited reply: {line}")

    def _heard(self, reply: HopReply) -> None:
        waiting, self._waiting = self._waiting, None
        if self._ahead:
            timeout, self._waiting = self._ahead.popleft()
            self._expect(timeout)
        elif self._queue:
            line, timeout, deferred = self._queue.popleft()
            self._send(line, timeout, deferred)
        else:
            self._rest()
        assert waiting is not None
        waiting.callback(reply)

    # Commands

    def command(self, line: bytes, timeout: float) -> Deferred[HopAnswer]:
        """Send ``line`` (without CRLF) and await its reply for at most ``timeout`` seconds.

        A line that holds CR, LF or NUL is a bug of the caller: ValueError.
        """
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise ValueError("a command is one line")
        if self.broken is not None:
            return succeed(self.broken)
        deferred: Deferred[HopAnswer] = Deferred()
        if self._waiting is None:
            self._send(line, timeout, deferred)
        elif len(self._queue) < MAX_QUEUED_COMMANDS:
            self._queue.append((line, timeout, deferred))
        else:
            raise RuntimeError("a command is sent when the one before it has been answered")
        return deferred

    def pipelined(self, lines: Sequence[tuple[bytes, float]]) -> list[Deferred[HopAnswer]]:
        """Send several commands, each with its timeout in seconds, in one write, to a host that offers PIPELINING and is at rest.

        Their replies, in the same order (RFC 2920).
        """
        if any(b"\r" in line or b"\n" in line or b"\0" in line for line, _ in lines):
            raise ValueError("a command is one line")
        if self.broken is not None:
            return [succeed(self.broken) for _ in lines]
        if not self.at_rest:
            raise RuntimeError("commands are sent ahead when nothing else is under way")
        answers: list[Deferred[HopAnswer]] = [Deferred() for _ in lines]
        self._waiting = answers[0]
        self._ahead.extend((timeout, answer) for (_, timeout), answer in zip(lines[1:], answers[1:], strict=True))
        self._expect(lines[0][1])
        self.write(b"".join(line + b"\r\n" for line, _ in lines))
        return answers

    def _send(self, line: bytes, timeout: float, deferred: Deferred[HopAnswer]) -> None:
        self._waiting = deferred
        self._expect(timeout)
        self.write(line + b"\r\n")

    async def ehlo(self, name: bytes, timeout: float) -> HopAnswer:
        """Greet with EHLO, or with HELO when EHLO is refused; ``extensions`` are those of the last EHLO."""
        self.extensions = {}
        self.esmtp = False
        answer = await self.command(b"EHLO " + name, timeout)
        if isinstance(answer, HopFailure):
            return answer
        if answer.code != 250:
            return await self.command(b"HELO " + name, timeout)
        extensions = {}
        for line in answer.lines[1:]:
            keyword, _, parameters = line[4:].strip().partition(" ")
            extensions[keyword.upper()] = parameters.strip()
        self.extensions = extensions
        self.esmtp = True
        return answer

    async def starttls(self, context: Any, name: bytes, timeout: float) -> HopAnswer:
        """STARTTLS, the handshake with ``context`` (an IOpenSSLClientConnectionCreator), and EHLO again.

        The answer is the host's refusal of STARTTLS (the connection goes on in the clear), a failure (the connection
        is gone), or the reply to the second EHLO. RFC 3207 4.2: what was learnt before is forgotten.
        """
        answer = await self.command(b"STARTTLS", timeout)
        if isinstance(answer, HopFailure) or answer.code != 220:
            return answer
        if self.broken is not None:
            return self.broken
        self.extensions = {}
        handshake = self._handshake = Deferred()
        self._expect(timeout)
        self.end_straight()
        self.transport.startTLS(context)
        failure = await handshake
        if failure is not None:
            return failure
        self.tls = True
        return await self.ehlo(name, timeout)

    def handshakeCompleted(self) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            self._rest()
            handshake.callback(None)

    def auth_plain(self, blob: bytes, timeout: float) -> Deferred[HopAnswer]:
        """AUTH PLAIN with an initial response in base64 (RFC 4616)."""
        return self.command(b"AUTH PLAIN " + blob, timeout)

    def noop(self, timeout: float) -> Deferred[HopAnswer]:
        return self.command(b"NOOP", timeout)

    def rset(self, timeout: float) -> Deferred[HopAnswer]:
        return self.command(b"RSET", timeout)

    # Content

    async def data(self, timeout: float) -> HopAnswer:
        """DATA. 354 opens the content, and ``in_data`` stays set until the reply to the final dot."""
        answer = await self.command(b"DATA", timeout)
        if answer.code == 354 and self.broken is None:
            self.in_data = True
            self._deadline = _NEVER
        return answer

    async def send_content(self, head: bytes, read: Read, stall_timeout: float, dot_timeout: float, *, plain: bool = False) -> HopAnswer:
        """Send ``head``, then what ``read`` gives until it is empty, then the final dot; the reply to the dot.

        Content is octets with CRLF line ends and without stuffed dots. A host that takes nothing for ``stall_timeout``
        seconds, or does not answer the dot within ``dot_timeout`` seconds, has failed. Anything it says before the dot
        ends the connection. When ``read`` gives None the message is withdrawn. ``plain``: what ``read`` gives is out of
        content that a DotReader called so.
        """
        if self.broken is not None:
            return self.broken
        writer = DotWriter()
        write = writer.write_plain if plain else writer.write
        flow: _Flow | None = None
        pending = [writer.write(head)]
        size = len(head)
        while True:
            # A short message is one write, which nothing needs to hold back.
            if flow is None and size >= WRITE_SIZE:
                flow = self._watch_flow()
            piece = read()
            if isinstance(piece, Deferred):
                flow = flow or self._watch_flow()
                piece = await piece
            if self.broken is not None:
                return self.broken
            if piece is None:
                failure = HopFailure(FailureKind.CONTENT, "content not available")
                self._close(failure)
                return failure
            if not piece:
                break
            pending.append(write(piece))
            size += len(piece)
            if size >= WRITE_SIZE and flow is not None:
                self.write_all(pending)
                pending = []
                size = 0
                if flow.drained is not None:
                    self._expect(stall_timeout)
                    await flow.drained
                    if self.broken is not None:
                        return self.broken
        if flow is not None:
            self._flow = None
            self.transport.unregisterProducer()
        pending.append(writer.end())
        answered: Deferred[HopAnswer] = Deferred()
        self._waiting = answered
        self._expect(dot_timeout)
        self.write_all(pending)
        answer = await answered
        self.in_data = False
        if self.broken is None:
            self._rest()
        return answer

    def _watch_flow(self) -> _Flow:
        flow = self._flow = _Flow(self)
        self.transport.registerProducer(flow, True)
        return flow

    def flowing(self) -> None:
        """The buffer has drained: the host is alive, and it is our turn."""
        self._deadline = _NEVER
        self.begin_straight()


def _text(line: bytes) -> str:
    return line.translate(_SAFE).decode("ascii")


def _path(name: Any) -> str:
    return os.fsdecode(name) if name else ""


def _tls_reason(reason: Failure) -> str:
    """What OpenSSL says, or the transport's reason."""
    error = reason.value
    detail = error.args[0] if error is not None and error.args else None
    if isinstance(detail, list) and detail and isinstance(detail[0], tuple):
        return _text(str(detail[0][-1]).encode("utf-8"))
    return _text((reason.getErrorMessage() or type(error).__name__).encode("utf-8"))
