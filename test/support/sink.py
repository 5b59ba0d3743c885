"""A next hop in a thread of the test, for nodes that are processes of their own: it takes everything and keeps it."""

from __future__ import annotations

import socketserver
import threading
from typing import Any


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.say(b"220 sink.example ESMTP")
        for line in self.rfile:
            verb = line.strip().upper().split(b" ")[0]
            if verb == b"DATA":
                self.say(b"354 go on")
                self.take()
            elif verb == b"QUIT":
                self.say(b"221 2.0.0 bye")
                return
            else:
                self.say(b"250 2.0.0 ok")

    def take(self) -> None:
        content = b""
        for line in self.rfile:
            if line == b".\r\n":
                self.server.sink.contents.append(content)  # type: ignore[attr-defined]
                self.say(b"250 2.0.0 taken")
                return
            content += line

    def say(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A node that is killed in the middle is what some tests are about."""


class Sink:
    """``contents`` are the messages taken, dots still stuffed."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.sink = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
