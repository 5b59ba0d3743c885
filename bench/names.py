"""A name server as a process of its own: it knows every client, one sender's domain, and that nobody is listed.

``python -m bench.names PORT DELAY``: DELAY is what it waits before each answer, in milliseconds. Datagrams only; what it does not know
does not exist.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.processes import HOST, Child, free_port

SENDER_DOMAIN = "elsewhere.example"
LISTS = ";".join(f"list{place}.lists.example" for place in range(10))
BUFFER = 8 << 20
"""Octets of datagrams that may wait: thousands of questions come at the same time."""
TTL = 3600

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHLH")
_A, _PTR, _MX, _TXT = 1, 12, 15, 16
_SPF = b"v=spf1 a mx include:spf.elsewhere.example -all"
_EVERYBODY = b"v=spf1 ip4:0.0.0.0/0 -all"
_EXCHANGE = b"\x02mx\x09elsewhere\x07example\x00"


def _answer(name: str, kind: int) -> bytes | None:
    """Data of the record, empty when there is none of that kind, None when the name does not exist."""
    if name.endswith(".in-addr.arpa"):
        host = b"c-" + "-".join(name.split(".")[3::-1]).encode()
        return bytes([len(host)]) + host + b"\x07clients\x07example\x00" if kind == _PTR else b""
    if name.endswith(".clients.example"):
        return bytes(int(part) for part in name.partition(".")[0].split("-")[1:]) if kind == _A else b""
    if name == SENDER_DOMAIN:
        return {_A: bytes((81, 2, 69, 11)), _MX: b"\0\x0a" + _EXCHANGE, _TXT: bytes([len(_SPF)]) + _SPF}.get(kind, b"")
    if name == f"mx.{SENDER_DOMAIN}":
        return bytes((81, 2, 69, 12)) if kind == _A else b""
    if name == f"spf.{SENDER_DOMAIN}":
        return bytes([len(_EVERYBODY)]) + _EVERYBODY if kind == _TXT else b""
    return None


def _zone_end() -> bytes:
    """The SOA of a negative answer, so that it may be kept."""
    data = b"\x02ns\x00\x02ns\x00" + struct.pack("!5L", 1, TTL, TTL, TTL, TTL)
    return b"\x07example\x00" + _RECORD.pack(6, 1, TTL, len(data)) + data


_NEGATIVE = _zone_end()


def response(query: bytes) -> bytes:
    """What is to be said to ``query``."""
    end = query.index(b"\0", 12)
    labels, at = [], 12
    while at < end:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    (kind,) = struct.unpack_from("!H", query, end + 1)
    data = _answer(b".".join(labels).decode("ascii").lower(), kind)
    question = query[12 : end + 5]
    number = int.from_bytes(query[:2], "big")
    if data:
        return _HEADER.pack(number, 0x8580, 1, 1, 0, 0) + question + b"\xc0\x0c" + _RECORD.pack(kind, 1, TTL, len(data)) + data
    return _HEADER.pack(number, 0x8583 if data is None else 0x8580, 1, 0, 1, 0) + question + _NEGATIVE


class _Server(asyncio.DatagramProtocol):
    def __init__(self, delay: float) -> None:
        self._delay = delay

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.sendto, response(data), address)
        else:
            self._transport.sendto(response(data), address)


async def serve(port: int, delay: float) -> None:
    """Until the process ends. ``delay`` in seconds."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    bound.bind((HOST, port))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Server(delay), sock=bound)
    await asyncio.Event().wait()


@contextmanager
def name_server(folder: Path, delay: int) -> Iterator[int]:
    """The port of such a process; it takes ``delay`` milliseconds for an answer."""
    port = free_port()
    root = str(Path(__file__).parent.parent)
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    with Child(
        ["env", f"PYTHONPATH={paths}", sys.executable, "-m", "bench.names", str(port), str(delay)], folder, folder / f"names{delay}"
    ):
        time.sleep(1.0)
        yield port


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]) / 1000))
