"""Five hundred slow and hostile clients beside fifty honest ones: how long the honest ones wait, and what the node holds on to.

    python -m bench.hostile [--minutes 10] [--hostile 500] [--honest 50]

First the honest clients alone for a while (their undisturbed median), then both together. At the end resident memory and open
descriptors of the node are compared with those after the first two minutes of the attack. Everything stays on loopback and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import logging
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.names import name_server
from bench.node import ALONE, Node
from bench.postfix_tools import DOMAIN, Sink
from bench.processes import HOST, more_descriptors

# The hostile clients are strangers to the node: XCLIENT names an address of their own, so that no trust of localhost covers them.
Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter, random.Random], Awaitable[None]]
PAUSE_HONEST = 1.0
"""Seconds between two messages of one honest client."""
LETTER = b"Subject: honest\r\n\r\n" + b"A line of honest mail.\r\n" * 200 + b".\r\n"
LASTING = 16
"""Descriptors that a node opens once and keeps: sockets of the resolver, files of the cache."""
UNDISTURBED = 20.0
"""Seconds of the first part."""


async def _said(reader: asyncio.StreamReader) -> bytes:
    """One reply. Raises ConnectionError when the node hangs up."""
    while True:
        line = await asyncio.wait_for(reader.readline(), 60)
        if not line:
            raise ConnectionError
        if line[3:4] == b" ":
            return line


async def _honest_message(port: int) -> float:
    """Seconds from connect to the answer to QUIT. Raises ConnectionError when anything was refused."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection(HOST, port)
    await _said(reader)
    for line, wanted in (
        (b"EHLO honest.example.org", b"250"),
        (b"MAIL FROM:<joe@example.org>", b"250"),
        (f"RCPT TO:<ann@{DOMAIN}>".encode(), b"250"),
        (b"DATA", b"354"),
    ):
        writer.write(line + b"\r\n")
        if not (await _said(reader)).startswith(wanted):
            raise ConnectionError(line)
    writer.write(LETTER)
    if not (await _said(reader)).startswith(b"250"):
        raise ConnectionError("dot")
    writer.write(b"QUIT\r\n")
    await _said(reader)
    writer.close()
    return time.monotonic() - begun


async def _honest(port: int, until: float, taken: list[float], failed: list[str]) -> None:
    while time.monotonic() < until:
        try:
            taken.append(await _honest_message(port))
        except (ConnectionError, TimeoutError, OSError) as error:
            failed.append(repr(error))
        await asyncio.sleep(PAUSE_HONEST)


async def _stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Become a client from elsewhere and hear its banner."""
    await _said(reader)
    writer.write(f"XCLIENT NAME=[UNAVAILABLE] ADDR=198.51.{100 + number // 250}.{number % 250 + 1}\r\n".encode())
    await _said(reader)


async def _one_octet_a_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    for octet in b"EHLO slow.example.org\r\n" * 20:
        writer.write(bytes([octet]))
        await asyncio.sleep(1)


async def _endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    while not reader.at_eof():
        writer.write(b"X" * 10000)
        await writer.drain()
        await asyncio.sleep(1)


async def _endless_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    writer.write(f"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<ann@{DOMAIN}>\r\nDATA\r\n".encode())
    while not reader.at_eof():
        writer.write(b"X-Padding: " + b"p" * 60000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(2)


async def _slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    writer.write(f"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<ann@{DOMAIN}>\r\nDATA\r\nSubject: s\r\n\r\n".encode())
    for _ in range(120):
        writer.write(b"drop\r\n")
        await writer.drain()
        await asyncio.sleep(1)


async def _never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(60):
        writer.write(b"HELP\r\n" * 500)
        await asyncio.sleep(1)


async def _many_recipients(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    writer.write(b"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\n")
    for number in range(3000):
        writer.write(f"RCPT TO:<r{number}@{DOMAIN}>\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.5)


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    for _ in range(50):
        writer.write(rng.randbytes(rng.randrange(1, 900)))
        await writer.drain()
        await asyncio.sleep(1)


async def _vanishes_in_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    writer.write(f"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<ann@{DOMAIN}>\r\nDATA\r\n".encode())
    writer.write(b"line\r\n" * rng.randrange(1, 5000))
    await asyncio.sleep(rng.random() * 3)
    writer.transport.abort()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
    await asyncio.sleep(60)


ATTACKS: tuple[Attack, ...] = (
    _one_octet_a_second, _endless_line, _endless_header, _slow_body, _never_reads, _many_recipients, _garbage, _vanishes_in_data, _silent,
)  # fmt: skip


async def _hostile(port: int, number: int, until: float) -> None:
    rng = random.Random(number)
    attack = ATTACKS[number % len(ATTACKS)]
    while time.monotonic() < until:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            await asyncio.wait_for(_stranger(reader, writer, number), 60)
            await asyncio.wait_for(attack(reader, writer, rng), max(1.0, until - time.monotonic()))
        except (ConnectionError, TimeoutError, OSError):
            pass
        finally:
            if writer is not None:
                writer.transport.abort()
        await asyncio.sleep(1 + rng.random() * 4)


def _held(node: Node) -> tuple[int, int]:
    """Resident octets and open descriptors of the node."""
    return node.child.resident(), len(os.listdir(f"/proc/{node.child.pid}/fd"))


def _attack(port: int, hostile: int, seconds: float) -> None:
    """The hostile clients, in a process of their own, so that they do not slow the honest ones down by themselves."""

    async def all_of_them() -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(_hostile(port, number, until) for number in range(hostile)))

    more_descriptors(8192)
    # Writing to a node that has hung up is what hostile clients do all the time.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(all_of_them())


async def _run(node: Node, minutes: float, hostile: int, honest: int) -> int:
    alone: list[float] = []
    failed_alone: list[str] = []
    until = time.monotonic() + UNDISTURBED
    await asyncio.gather(*(_honest(node.port, until, alone, failed_alone) for _ in range(honest)))
    quiet = _held(node)
    beside: list[float] = []
    failed: list[str] = []
    until = time.monotonic() + minutes * 60
    work = [asyncio.create_task(_honest(node.port, until, beside, failed)) for _ in range(honest)]
    attack = multiprocessing.get_context("spawn").Process(target=_attack, args=(node.port, hostile, minutes * 60))
    attack.start()
    await asyncio.sleep(min(120.0, minutes * 60 / 2))
    early = _held(node)
    most = late = early
    while time.monotonic() < until - 2:
        await asyncio.sleep(2)
        late = _held(node)
        most = max(most[0], late[0]), max(most[1], late[1])
    await asyncio.gather(*work)
    attack.join(60)
    await asyncio.sleep(5)
    after = _held(node)
    print("| | undisturbed | beside hostile clients |")
    print("|-|-|-|")
    print(f"| honest messages | {len(alone)} | {len(beside)} |")
    print(f"| failed | {len(failed_alone)} | {len(failed)} |")
    print(f"| median, ms | {statistics.median(alone) * 1000:.1f} | {statistics.median(beside) * 1000:.1f} |")
    print(
        f"| 99th centile, ms | {statistics.quantiles(alone, n=100)[98] * 1000:.1f} | {statistics.quantiles(beside, n=100)[98] * 1000:.1f} |"
    )
    print(f"| resident, MB | {quiet[0] / 1e6:.1f} | early {early[0] / 1e6:.1f}, most {most[0] / 1e6:.1f}, late {late[0] / 1e6:.1f} |")
    print(f"| descriptors | {quiet[1]} | early {early[1]}, most {most[1]}, late {late[1]}, afterwards {after[1]} |")
    good = statistics.median(beside) <= 2 * statistics.median(alone) and late[0] <= 1.05 * early[0] and after[1] <= quiet[1] + LASTING
    for error, count in collections.Counter(failed_alone + failed).items():
        print(f"failed {count} times: {error}")
    print(f"latency within twice, memory within 5 %, no descriptor left over: {'yes' if good else 'no'}")
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hostile", type=int, default=500)
    parser.add_argument("--honest", type=int, default=50)
    parser.add_argument("--keep-log", type=Path)
    words = parser.parse_args()
    more_descriptors(8192)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sink = Sink(folder)
        with name_server(folder, 0) as names:
            node = Node(folder / "node", sink.port, options=(ALONE, "smtp-drop-after=5", f"dns-servers={HOST}:{names}"))
            try:
                return asyncio.run(_run(node, words.minutes, words.hostile, words.honest))
            finally:
                node.stop()
                sink.stop()
                if words.keep_log is not None:
                    shutil.copy(node.log, words.keep_log)


if __name__ == "__main__":
    sys.exit(main())
