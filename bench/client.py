"""A small SMTP client on asyncio: as many at once as one likes, one connection for one message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import attrs

from bench.postfix_tools import DOMAIN, SENDER
from bench.processes import HOST

HELO = "client.elsewhere.example"
AT_ONCE = 20
"""Transactions under way in :func:`send_all`."""
PATIENCE = 60.0
"""Seconds that one transaction may take."""


@attrs.frozen
class Foreigner:
    """What XCLIENT claims, so that the node meets a client from outside and not localhost."""

    address: str
    name: str = ""
    """Empty: the node asks the DNS."""

    @property
    def command(self) -> bytes:
        return f"XCLIENT ADDR={self.address}{f' NAME={self.name}' if self.name else ''}\r\n".encode()


@attrs.frozen
class Outcome:
    """How one transaction ended."""

    code: int
    """Of the reply that ended it; 0 when the connection was lost."""
    seconds: float
    """From connecting to that reply."""


class _Lost(Exception):
    pass


async def transact(
    port: int, content: bytes, claim: Foreigner | None = None, sender: str = SENDER, recipient: str = f"recipient@{DOMAIN}"
) -> Outcome:
    """Send ``content`` (CRLF, dots stuffed, without the final dot) and say QUIT."""
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                code = await _talk(reader, writer, content, claim, sender, recipient)
                taken = time.perf_counter() - begun
                if code:
                    writer.write(b"QUIT\r\n")
                    await _reply(reader)
            finally:
                writer.close()
    except (_Lost, OSError, TimeoutError):
        return Outcome(0, time.perf_counter() - begun)
    return Outcome(code, taken)


async def send_all(port: int, messages: int, content: bytes, claim: Callable[[int], Foreigner | None]) -> int:
    """Send so many, ``AT_ONCE`` at a time, the n-th as ``claim(n)``; how many were not taken."""
    left = iter(range(messages))

    async def one_after_the_other() -> int:
        refused = 0
        for place in left:
            outcome = await transact(port, content, claim(place))
            refused += outcome.code != 250
        return refused

    return sum(await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE))))


async def send_or_fail(port: int, messages: int, content: bytes, claim: Callable[[int], Foreigner | None]) -> None:
    """The same where none may be refused. Raises RuntimeError."""
    refused = await send_all(port, messages, content, claim)
    if refused:
        raise RuntimeError(f"{refused} messages were not taken")


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes, claim: Foreigner | None, sender: str, recipient: str
) -> int:
    """The code of the first refusal, else of the reply to the message."""
    code = await _reply(reader)
    steps = [(f"EHLO {HELO}\r\n".encode(), 2)]
    if claim is not None:
        steps += [(claim.command, 2), (f"EHLO {claim.name or HELO}\r\n".encode(), 2)]
    steps += [(f"MAIL FROM:<{sender}>\r\n".encode(), 2), (f"RCPT TO:<{recipient}>\r\n".encode(), 2), (b"DATA\r\n", 3)]
    for line, wanted in steps:
        writer.write(line)
        code = await _reply(reader)
        if code // 100 != wanted:
            return code
    writer.write(content + b".\r\n")
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> int:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise _Lost
        if line[3:4] != b"-":
            return int(line[:3])


def filling(octets: int) -> bytes:
    """A message of about ``octets``."""
    head = b"From: <sender@elsewhere.example>\r\nTo: <recipient@bench.example>\r\nSubject: filling\r\n\r\n"
    line = b"All work and no play makes a line of seventy octets in every message.\r\n"
    return head + line * max(1, (octets - len(head)) // len(line))
