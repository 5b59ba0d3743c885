"""How coordinator and worker talk: questions, answers and news, as lines of JSON on a socket that only the two of them have.

What is said within one turn of the reactor goes out together, in the order in which it was said.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from smtpf import waiting

MOST_OPEN = 20_000
"""Questions that may wait for their answer."""
MAX_BUFFER = 64 * 1024 * 1024
"""Octets of one line; the reply to CONN on a very busy node has some millions."""

Handler = Callable[..., Awaitable[Any] | Any]


class ChannelError(Exception):
    """The other process is gone, has too much to do, or failed at what it was asked for."""


class Channel(Protocol):
    """One end. ``handlers`` do what the other end asks for; ``gone`` is called when there is no other end any more."""

    transport: Any

    def __init__(
        self,
        reactor: Any,
        handlers: Mapping[str, Handler],
        *,
        made: Callable[[], None] = lambda: None,
        gone: Callable[[], None] = lambda: None,
        failed: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        """``made`` is called once the socket is there; ``failed`` hears of faults in handlers."""
        self._reactor = reactor
        self._handlers = handlers
        self._made = made
        self._gone = gone
        self._failed = failed
        self._open: dict[int, Callable[[Any, Exception | None], None]] = {}
        self._last = 0
        self._out: list[str] = []
        self._parts: list[bytes] = []
        self._size = 0
        self.closed = False

    def ask(self, done: Callable[[Any, Exception | None], None], name: str, *arguments: Any) -> bool:
        """Ask the other end; ``done`` hears the answer, or why there is none. False: it cannot be asked now."""
        if self.closed or len(self._open) >= MOST_OPEN:
            return False
        self._last += 1
        self._open[self._last] = done
        self._say([self._last, name, arguments])
        return True

    def call(self, name: str, *arguments: Any) -> Deferred[Any]:
        """The answer of the other end. The Deferred fails with ChannelError."""
        answer: Deferred[Any] = Deferred()

        def done(result: Any, error: Exception | None) -> None:
            if error is None:
                answer.callback(result)
            else:
                answer.errback(error)

        if not self.ask(done, name, *arguments):
            answer.errback(ChannelError("cannot be asked"))
        return answer

    def tell(self, name: str, *arguments: Any) -> None:
        """Let the other end know; there is no answer."""
        self.tell_line(news(name, *arguments))

    def tell_line(self, line: str) -> None:
        """The same with a line made by :func:`news`, for those who tell several ends."""
        if not self.closed:
            self._say_line(line)

    def flush(self) -> None:
        """Send what has been said in this turn now."""
        out, self._out = self._out, []
        if out and not self.closed:
            self.transport.write("".join(out).encode("ascii"))

    def close(self) -> None:
        """Say what is left to say, and close."""
        self.flush()
        self.transport.loseConnection()

    def connectionMade(self) -> None:
        self._made()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = True
        waiting_for, self._open = self._open, {}
        for done in waiting_for.values():
            done(None, ChannelError("gone"))
        self._gone()

    def dataReceived(self, data: bytes) -> None:
        end = data.rfind(b"\n")
        if end < 0:
            self._parts.append(data)
            self._size += len(data)
            if self._size > MAX_BUFFER:
                self.transport.abortConnection()
            return
        whole = b"".join((*self._parts, data[:end]))
        rest = data[end + 1 :]
        self._parts, self._size = [rest] if rest else [], len(rest)
        for line in whole.split(b"\n"):
            self._heard(json.loads(line))

    def _heard(self, said: list[Any]) -> None:
        number, what, content = said
        if number < 0:
            done = self._open.pop(-number, None)
            if done is not None:
                done(None, ChannelError(content)) if what else done(content, None)
            return
        work = self._handlers[what]

        def answered(result: Any) -> None:
            if number:
                self._say([-number, 0, result])

        def broken(failure: Failure) -> None:
            if number:
                self._say([-number, 1, failure.getErrorMessage()])
            else:
                self._failed(failure)

        waiting.run(_doing(work, content), answered, broken)

    def _say(self, what: list[Any]) -> None:
        if not self.closed:
            self._say_line(json.dumps(what, separators=(",", ":")) + "\n")

    def _say_line(self, line: str) -> None:
        if not self._out:
            self._reactor.callLater(0, self.flush)
        self._out.append(line)


def news(name: str, *arguments: Any) -> str:
    """A line for :meth:`Channel.tell_line`."""
    return json.dumps([0, name, arguments], separators=(",", ":")) + "\n"


async def _doing(work: Handler, arguments: list[Any]) -> Any:
    result = work(*arguments)
    return await result if isinstance(result, Awaitable) else result
