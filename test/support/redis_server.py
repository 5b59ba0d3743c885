"""A real redis-server of the test's own: a free loopback port, a folder, and no trace after it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from test.support.node_process import PATIENCE, free_port, wait_until

PROGRAM = shutil.which("valkey-server") or shutil.which("redis-server")


class RedisServer:
    """``start``, ``kill`` and ``start`` again on the same port. ``options`` are words of its command line."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.path = str(folder / "redis.sock")
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisServer:
        assert PROGRAM is not None
        words = [
            PROGRAM, "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.path, "--dir", str(self.folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", *self._options,
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._listens)
        return self

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
        except OSError:
            return False

    def say(self, *words: str | bytes) -> Any:
        """The answer to one command: bytes, int, None, or a list of these."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
            encoded = [word if isinstance(word, bytes) else word.encode() for word in words]
            client.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded))
            with client.makefile("rb") as answers:
                return _answer(answers)

    def row(self, key: str) -> dict[str, str]:
        """The fields of a record, as the server holds them."""
        flat = [each.decode() for each in self.say("HGETALL", f"smtpf:{key}")]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def freeze(self) -> None:
        """Connections stay open, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


def _answer(answers: Any) -> Any:
    line = answers.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"*":
        return [_answer(answers) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else answers.read(int(rest) + 2)[:-2]
    return int(rest) if kind == b":" else rest if kind == b"+" else line
