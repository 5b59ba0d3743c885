"""Other proxies in the same place: each started with (folder, port of the next hop), and with a port, a child and ``stop``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.network import everywhere
from bench.peers.postfix import PostfixProxy
from bench.processes import Child, Missing, answers, free_port, wait_until


class PythonPeer:
    """A proxy that is one Python file of ours beside this one: ``FILE.py ADDRESS PORT NEXT-HOP-PORT``."""

    def __init__(self, name: str, folder: Path, hop: int) -> None:
        folder.mkdir()
        self.port = free_port()
        file = Path(__file__).with_name(f"{name}.py")
        self.child = Child([sys.executable, str(file), everywhere(), str(self.port), str(hop)], folder, folder / "output")
        try:
            wait_until(lambda: self.child.process.poll() is not None or answers(self.port), f"{name} does not answer")
        finally:
            if self.child.process.poll() is not None:
                raise Missing((folder / "output").read_text(errors="replace").strip().rpartition("\n")[2])

    def stop(self) -> None:
        self.child.stop()


def _aiosmtpd(folder: Path, hop: int) -> PythonPeer:
    return PythonPeer("aiosmtpd_proxy", folder, hop)


def _twisted(folder: Path, hop: int) -> PythonPeer:
    return PythonPeer("twisted_relay", folder, hop)


PEERS: dict[str, Callable[[Path, int], PythonPeer | PostfixProxy]] = {
    "aiosmtpd": _aiosmtpd,
    "postfix": PostfixProxy,
    "twisted": _twisted,
}
