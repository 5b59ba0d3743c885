"""The control socket: the administration commands for those who may open a Unix socket, without SMTP around them.

A connection begins with a 220 line and takes one command a line: those of the SMTP port, RELOAD, HELP and QUIT. Who may
open it is a matter of the file's group and mode (0660). Source: spec chapter operations, 4.1.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from smtpf import waiting
from smtpf.admin.asker import Asker
from smtpf.reply import Answer, render
from smtpf.settings.option import Text
from smtpf.smtp import replies
from smtpf.smtp.commands import decode, split

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from smtpf.admin.commands import Administration, Run
    from smtpf.smtp.engine import Engine

CONTROL_SOCKET = Text(
    "control-socket",
    "",
    "Path of a Unix socket for the administration commands; `smtpf stat` and its sisters use it. Whoever is in run-group may open it. "
    "Empty: there is none.",
    choices='absolute path; "" = none',
    runtime=False,
    since="new",
    area="admin",
)

MODE = 0o660
IDLE = 300.0
"""Seconds of silence after which a connection is closed."""
MOST_CONNECTIONS = 20
MOST_WAITING = 100
"""Commands sent ahead; with more the connection is closed."""
BACKLOG = 10


class ControlSession(LineOnlyReceiver, TimeoutMixin):
    """One connection to the control socket."""

    delimiter = b"\n"
    MAX_LENGTH = 8192
    transport: Any

    def __init__(self, door: ControlDoor) -> None:
        self._door = door
        self._sid = ""
        self._lines: deque[bytes] = deque()
        self._busy = False

    def connectionMade(self) -> None:
        engine = self._door.engine
        self._sid = engine.ids.next(engine.now())
        self._door.open += 1
        self.setTimeout(IDLE)  # type: ignore[no-untyped-call]
        if self._door.open > MOST_CONNECTIONS:
            self._end(render(replies.NOT_AVAILABLE, (), self._sid))
            return
        self._write(render(replies.BANNER_SHORT, (engine.host_name, "E"), self._sid))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._door.open -= 1
        self._lines.clear()
        self.setTimeout(None)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        self.resetTimeout()  # type: ignore[no-untyped-call]
        self._lines.append(line)
        if len(self._lines) > MOST_WAITING:
            self.transport.abortConnection()
        elif not self._busy:
            self._next()

    def _next(self) -> None:
        while self._lines and not self._busy:
            self._busy = True
            waiting.run(self._one(self._lines.popleft()), self._answered, self._broken)

    def _answered(self, answer: Answer | None) -> None:
        self._busy = False
        if answer is not None:
            self._write(answer)
        if self._lines:
            self._door.engine.reactor.callLater(0, self._next)

    def _broken(self, failure: Failure) -> None:
        self._door.engine.journal.failure(failure, self._sid, "control socket")
        self._end(render(replies.INTERNAL_ERROR, (), self._sid))

    async def _one(self, raw: bytes) -> Answer | None:
        text = decode(raw.rstrip(b"\r") + b"\r\n")
        verb, argument = split(text or "")
        verb = verb.upper()
        if verb == "QUIT":
            self._end(render(replies.CLOSING, (self._door.engine.host_name,), self._sid))
            return None
        if verb == "HELP":
            verbs = sorted((*self._door.commands, "HELP", "QUIT"))
            return Answer(("214-2.0.0 Administration:", "214-2.0.0   " + " ".join(verbs), "214 2.0.0 End"))
        run = self._door.commands.get(verb)
        if run is None or text is None:
            return render(replies.UNKNOWN_COMMAND, (verb,), self._sid)
        return await self._door.administration.carry_out(run, Asker(self._sid), argument, text)

    def _write(self, answer: Answer) -> None:
        self.transport.write(answer.encode())

    def _end(self, answer: Answer) -> None:
        self._lines.clear()
        self._write(answer)
        self.transport.loseConnection()


class ControlDoor(Factory):
    """Makes the sessions of the control socket, and listens."""

    noisy = False

    def __init__(self, engine: Engine, administration: Administration) -> None:
        self.engine = engine
        self.administration = administration
        self.commands: Mapping[str, Run] = {**administration.commands, "RELOAD": administration.reload}
        self.open = 0
        """Connections now."""
        self._port: Any = None
        self._path = ""

    def buildProtocol(self, addr: IAddress | None) -> ControlSession:
        return ControlSession(self)

    def listen(self, path: str, reactor: Any) -> None:
        """Listen at ``path``; a socket that a dead node left there is replaced. Raises OSError."""
        _make_way(path)
        try:
            self._port = reactor.listenUNIX(path, self, backlog=BACKLOG, mode=MODE)
        except CannotListenError as error:
            inner = error.socketError
            raise inner if isinstance(inner, OSError) else OSError(errno.EINVAL, str(inner)) from error
        self._path = path

    async def close(self) -> None:
        """Take no more connections, and take the socket away."""
        if self._port is None:
            return
        await self._port.stopListening()
        self._port = None
        try:
            os.unlink(self._path)
        except OSError:
            # In a folder that only root may write the next start takes it away.
            pass


def _make_way(path: str) -> None:
    """Remove a socket nobody listens at. Raises OSError when somebody does, or something else is there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
