"""A node as a process of its own, from a folder with its configuration."""

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
"""Seconds that a start or an end may take."""
LOOK = threading.Event()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port


class Installation:
    """A folder with configuration, and the processes started from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "log"
        self.pid_file = folder / "smtpf.pid"
        self.file = folder / "smtpf.cf"
        (folder / "access.cf").touch()
        (folder / "route.cf").write_text("route:127.0.0.1\tFORWARD: 127.0.0.1:9; RELAY\n")
        self.file.write_text(
            f'interfaces="127.0.0.1:{self.port}"\naccess-map="file!{folder}/access.cf"\nroute-map="file!{folder}/route.cf"\n'
            f'cache-path="{folder}/cache.sq3"\nsave-dir="{folder}"\nrun-user=root\nrun-group=root\nrun-work-dir="{folder}"\n'
            f'run-pid-file="{self.pid_file}"\nlog-target="file!{self.log}"\n'
        )
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, twistd: tuple[str, ...] = ("-n",), environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [str(TWISTD), *twistd, "smtpf", f"file={self.file}", *words]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=self.folder, env=variables, **streams)  # type: ignore[call-overload]
        self.started.append(process)
        return process  # type: ignore[no-any-return]

    def logged(self) -> list[str]:
        """Message numbers and texts, without time and process."""
        text = self.log.read_text() if self.log.exists() else ""
        return [line[line.index("#") :] for line in text.splitlines() if "#" in line]

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: any(line.startswith(text) for line in self.logged()))


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        # Another process's file is looked at, so there is nothing to be woken by.
        LOOK.wait(0.02)
