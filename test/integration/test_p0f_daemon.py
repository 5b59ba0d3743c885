"""The query protocol against the real p0f, which has watched a recorded connection."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from smtpf.scanners.p0f import Fault, Fingerprint, P0fError, ask, query_2, query_3
from test.support.node_process import wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("p0f") is None or os.geteuid() != 0, reason="p0f is not installed, or may not watch an interface"
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """p0f on the loopback interface, with one connection seen; the path of its socket."""
    path = f"{tmp_path}/p0f"
    process = subprocess.Popen(
        ["p0f", "-i", "lo", "-s", path, "tcp"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_until(lambda: os.path.exists(path) or process.poll() is not None)
        if process.poll() is not None:
            pytest.skip(f"p0f does not run here: {process.communicate()[0][-200:]}")
        wait_until(lambda: _connect() and struct.unpack_from("=I", _raw(path, query_3(IPv4Address("127.0.0.1")).octets), 4)[0] == 0x10)
        yield path
    finally:
        process.terminate()
        process.wait(10)


def _connect() -> bool:
    """A connection for p0f to see."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()), server.accept()[0]:
        return True


def _raw(path: str, octets: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(octets)
        answer = b""
        while len(answer) < 232:
            answer += client.recv(232)
        return answer


def test_what_p0f_says(reactor_run: Any, daemon: str) -> None:
    from twisted.internet import reactor

    seen = reactor_run(ask(reactor, daemon, query_3(IPv4Address("127.0.0.1")), 5))
    assert isinstance(seen, Fingerprint)
    assert " conn " in seen.report
    assert reactor_run(ask(reactor, daemon, query_3(IPv4Address("192.0.2.77")), 5)) == Fingerprint("? ?")
    assert reactor_run(ask(reactor, daemon, query_3(ip_address("2001:db8::77")), 5)) == Fingerprint("? ?")
    old = query_2(7, IPv4Address("127.0.0.1"), 1, IPv4Address("127.0.0.1"), 25)
    wrong = reactor_run(ask(reactor, daemon, old, 1))
    assert isinstance(wrong, P0fError)
    assert wrong.fault in (Fault.MAGIC, Fault.READ, Fault.TIMEOUT)
