"""``python -m bench.crash_hop PORT JOURNAL``: a next hop that may be killed at any time and whose word is good.

Before it says 250 to a message it has written the message's mark and digest into the journal, with one system call; what was
written before a SIGKILL is there after it. Used by ``bench.crash``.
"""

from __future__ import annotations

import hashlib
import os
import socketserver
import sys

MARK = b"X-Crash: "
"""Field that begins what the sender wrote; the digest is of everything from there."""


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.say(b"220 hop.example ESMTP")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.say(b"250-hop.example\r\n250 8BITMIME")
            elif verb == b"DATA":
                self.say(b"354 go on")
                if not self.message():
                    return
            elif verb == b"QUIT":
                self.say(b"221 bye")
                return
            else:
                self.say(b"250 fine")

    def message(self) -> bool:
        lines: list[bytes] = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            if not line.endswith(b"\r\n"):
                return False
            lines.append(line[1:] if line.startswith(b".") else line)
        else:
            return False
        content = b"".join(lines)
        at = max(0, content.find(MARK))
        mark = content[at + len(MARK) : content.find(b"\r\n", at)]
        assert isinstance(self.server, Server)
        os.write(self.server.journal, mark + b" " + hashlib.sha256(content[at:]).hexdigest().encode() + b"\n")
        self.say(b"250 taken")
        return True

    def say(self, reply: bytes) -> None:
        self.wfile.write(reply + b"\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, journal: str) -> None:
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        super().__init__(("127.0.0.1", port), Session)

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections break here by intention."""


if __name__ == "__main__":
    Server(int(sys.argv[1]), sys.argv[2]).serve_forever()
