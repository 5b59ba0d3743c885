"""A node as a process of its own, and waiting for what other processes do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import smtpf

ROOT = Path(smtpf.__file__).parent.parent
TWISTD = Path(sys.executable).parent / "twistd"
PATIENCE = 30
"""Seconds that another process may take."""
_LOOK = threading.Event()
_PASS_ON = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
"""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port


def wait_until(true: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Look until ``true()``; AssertionError after ``patience`` seconds."""
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until
        # Another process is looked at, so there is nothing to be woken by.
        _LOOK.wait(0.02)


class NodeProcess:
    """One node with its folder. Write ``access`` and ``route`` before ``start``."""

    def __init__(self, folder: Path, *, route: str, access: str = "", options: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "access.cf").write_text(access)
        (folder / "route.cf").write_text(route)
        self.log = folder / "log"
        self.file = folder / "smtpf.cf"
        self.file.write_text(
            f'interfaces="127.0.0.1:{self.port}"\naccess-map="file!{folder}/access.cf"\nroute-map="file!{folder}/route.cf"\n'
            f'cache-path="{folder}/cache.sq3"\nsave-dir="{folder}"\nrun-user=root\nrun-group=root\nrun-work-dir="{folder}"\n'
            f'run-pid-file=\nlog-target="file!{self.log}"\nrate-throttle=0\n{options}\n'
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self, passed: socket.socket | None = None) -> NodeProcess:
        """``passed``: a listening socket, as a service manager hands it to what it starts (sd_listen_fds(3))."""
        command = [str(TWISTD), "-n", "--pidfile=", "smtpf", f"file={self.file}", "-daemon"]
        if os.geteuid() != 0:
            command += ["+lenient"]
        descriptors: tuple[int, ...] = ()
        if passed is not None:
            number = passed.fileno()
            command = [sys.executable, "-c", _PASS_ON, str(number), *command]
            descriptors = (number,)
        self.process = subprocess.Popen(
            command, text=True, cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=descriptors,
        )  # fmt: skip
        wait_until(lambda: self.logged("#599") != [] or self._ended())
        return self

    def _ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(self.process.communicate()[1])
        return False

    def logged(self, number: str) -> list[str]:
        """The log lines with ``#NNN``."""
        text = self.log.read_text() if self.log.exists() else ""
        return [line for line in text.splitlines() if f" {number} " in line]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
