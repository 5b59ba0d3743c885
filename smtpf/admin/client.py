"""The other end of the administration commands: how ``smtpf stat`` and its sisters speak with a running node.

Over the control socket where there is one, else over the SMTP port as a client of this machine. Everything here waits.
Source: spec chapter operations, 4.1 and 9.1.
"""

from __future__ import annotations

import ipaddress
import socket
from types import TracebackType

import attrs

from smtpf.admin.control import CONTROL_SOCKET
from smtpf.settings.process_options import INTERFACES
from smtpf.settings.store import Settings

TIMEOUT = 30.0
"""Seconds to wait for the node at each step."""
LONGEST = 65_536
"""Octets of one line of a reply."""
SMTP_PORT = 25


class NotReached(Exception):
    """No node answers; ``str()`` says where and why."""


@attrs.frozen
class Reply:
    """What the node said. ``lines`` without their codes; the last one is the end of the reply."""

    code: int
    lines: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.code < 400

    @property
    def body(self) -> tuple[str, ...]:
        """The lines before the end."""
        return self.lines[:-1]


class RunningNode:
    """A connection to a node. A context manager."""

    def __init__(self, path: str, host: str = "", port: int = SMTP_PORT) -> None:
        """``path`` of the control socket, or the address of the SMTP port. Raises NotReached."""
        self.where = path or f"{host}:{port}"
        try:
            if path:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(TIMEOUT)
                self._socket.connect(path)
            else:
                self._socket = socket.create_connection((host, port), TIMEOUT)
            self._file = self._socket.makefile("rb")
            greeting = self._reply()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        if not greeting.good:
            raise NotReached(f"{self.where}: {greeting.lines[-1]}")

    def ask(self, line: str) -> Reply:
        """Give one command. Raises NotReached when the node goes away."""
        try:
            self._socket.sendall(line.encode("utf-8", "surrogateescape") + b"\r\n")
            return self._reply()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def _reply(self) -> Reply:
        lines = []
        while True:
            raw = self._file.readline(LONGEST)
            if not raw.endswith(b"\n"):
                raise ConnectionAbortedError("the node closed the connection")
            line = raw.rstrip(b"\r\n").decode("ascii", "replace")
            code, mark, text = line[:3], line[3:4], line[4:]
            # The enhanced status code says nothing more here.
            enhanced, _, rest = text.partition(" ")
            lines.append(rest if enhanced.count(".") == 2 and enhanced.replace(".", "").isdigit() else text)
            if mark != "-":
                return Reply(int(code), tuple(lines))

    def _failed(self, error: Exception) -> NotReached:
        return NotReached(f"{self.where}: {getattr(error, 'strerror', None) or error}")

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._socket.sendall(b"QUIT\r\n")
        except OSError:
            pass
        self._file.close()
        self._socket.close()


def connect(settings: Settings, path: str = "") -> RunningNode:
    """The node that runs with ``settings``; ``path`` names another control socket. Raises NotReached."""
    path = path or settings[CONTROL_SOCKET]
    if path:
        return RunningNode(path)
    for text in settings[INTERFACES]:
        host, port = _loopback(text)
        if host:
            return RunningNode("", host, port)
    raise NotReached("no control-socket, and no interface of this machine's loopback")


def _loopback(text: str) -> tuple[str, int]:
    """Where an item of ``interfaces`` is reached over the loopback; an empty host when it is not."""
    host, mark, port = text.rpartition(":")
    if not mark or not port.isdigit() or (host.count(":") and not host.startswith("[")):
        host, port = text, str(SMTP_PORT)
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "", 0
    if address.is_unspecified:
        return ("127.0.0.1" if address.version == 4 else "::1"), int(port)
    return (str(address) if address.is_loopback else ""), int(port)
