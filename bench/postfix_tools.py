"""smtp-source and smtp-sink of Postfix: a sender and a next hop that cost almost nothing themselves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from bench.network import everywhere
from bench.processes import HOST, Child, answers, free_port, program, wait_until

DOMAIN = "bench.example"
SENDER = "sender@elsewhere.example"
BACKLOG = 1024
LONGEST = 300.0
"""Seconds that one run of smtp-source may take."""


class Sink:
    """A next hop that takes and forgets everything."""

    def __init__(self, folder: Path, most: int = 1000) -> None:
        self.port = free_port()
        user = ["-u", "postfix"] if os.geteuid() == 0 else []
        self.child = Child([program("smtp-sink"), *user, "-m", str(most), "-c", f"{everywhere()}:{self.port}", str(BACKLOG)], folder)
        wait_until(lambda: answers(self.port), "smtp-sink does not answer")

    def stop(self) -> None:
        self.child.stop()


@attrs.frozen
class Load:
    """What smtp-source sends."""

    messages: int
    octets: int
    sessions: int
    keep: bool = False
    """Many messages over one connection (``-d``)."""
    recipients: int = 1
    """Of each message."""
    file: Path | None = None
    """A message of one's own instead of ``octets`` of filling."""

    def send(self, port: int) -> float:
        """Send all of it to ``port``; seconds it took. Raises RuntimeError with what smtp-source said."""
        begun = time.perf_counter()
        done = run([*self._words(), f"{HOST}:{port}"])
        if done.returncode:
            raise RuntimeError(f"smtp-source: {done.stderr.strip()}")
        return time.perf_counter() - begun

    def _words(self) -> list[str]:
        words: list[str] = [program("smtp-source"), "-s", str(self.sessions), "-m", str(self.messages), "-f", SENDER]
        words += ["-t", f"recipient@{DOMAIN}", "-M", "client.elsewhere.example"]
        words += ["-F", str(self.file)] if self.file is not None else ["-l", str(self.octets)]
        words += ["-d"] if self.keep else []
        words += ["-r", str(self.recipients)] if self.recipients > 1 else []
        return words


def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, check=False)
