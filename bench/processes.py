"""Child processes on loopback: started, awaited, measured from /proc, and ended."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds that a start or an end may take."""
PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/postfix/sbin", "/usr/libexec/postfix"))
TICK = 1000.0 / os.sysconf("SC_CLK_TCK")
"""Milliseconds of one tick of /proc/PID/stat."""


class Missing(Exception):
    """A program or a right that a measurement needs is not there."""


def program(name: str) -> str:
    """The path of ``name``. Raises Missing."""
    found = shutil.which(name, path=PATHS)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.create_server((HOST, 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port


def wait_until(true: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Look every 20 ms. Raises TimeoutError naming ``what``."""
    until = time.monotonic() + patience
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.02)


def answers(port: int) -> bool:
    """A server greets on ``port``."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as client:
            return client.recv(3) == b"220"
    except OSError:
        return False


def more_descriptors(wanted: int) -> None:
    """Let this process and its children have ``wanted`` descriptors. Raises Missing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError) as error:
        raise Missing(f"{wanted} descriptors: {error}; the limit is {hard}") from error


class Child:
    """One process with all its descendants."""

    def __init__(self, words: Sequence[str], folder: Path, output: Path | None = None) -> None:
        stream = output.open("ab") if output is not None else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                list(words), cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        finally:
            if not isinstance(stream, int):
                stream.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu(self) -> float:
        """Milliseconds of processor time so far, user and system, descendants included."""
        return cpu(self.pid)

    def resident(self) -> int:
        """Octets of resident memory, that of descendants included."""
        return resident(self.pid)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)


def cpu(pid: int) -> float:
    """Milliseconds of ``pid`` and of its descendants, living and reaped. 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        below = children(pid)
    except OSError:
        return 0.0
    own = sum(int(fields[place]) for place in (11, 12, 13, 14)) * TICK
    return own + sum(cpu(child) for child in below)


def resident(pid: int) -> int:
    """Octets of resident memory of ``pid`` and of its descendants. 0 when it is gone."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        below = children(pid)
    except OSError:
        return 0
    return own + sum(resident(child) for child in below)


def children(pid: int) -> list[int]:
    """Process ids. Raises OSError when ``pid`` is gone."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
