"""The protocol of ClamAV's clamd: a message as a stream of counted chunks, or the path of a file, and one line of result.

Source: clamd(8); spec chapter filters-content, 2.
"""

from __future__ import annotations

import struct
from enum import Enum

import attrs

from smtpf.scanners.connection import Connection, Trouble

PORT = 3310
MAX_COMMAND = 512
"""Octets of a command line."""
BEGIN_STREAM = b"zINSTREAM\0"
END_OF_STREAM = struct.pack("!I", 0)
STREAM_LIMIT = "INSTREAM size limit exceeded. ERROR"

_ENDS = b"\0\n"


class Finding(Enum):
    CLEAN = "clean"
    INFECTED = "infected"
    STREAM_LIMIT = "stream limit"
    """The message is longer than clamd's own StreamMaxLength."""
    UNCLEAR = "unclear"


@attrs.frozen
class Result:
    """What clamd said; ``text`` is the virus' name, or the whole line where the finding is unclear."""

    finding: Finding
    text: str = ""


def chunk(octets: bytes) -> bytes:
    """A piece of the message as it goes over the wire. It must not be empty: that would end the stream."""
    return struct.pack("!I", len(octets)) + octets


def scan_command(path: str) -> bytes | None:
    """The command to scan a file; None when it does not fit in a command line."""
    command = f"nSCAN {path}\n".encode()
    return command if len(command) <= MAX_COMMAND else None


async def read_result(connection: Connection) -> Result | Trouble:
    """Await the line of result."""
    line = await connection.line(_ENDS)
    return line if isinstance(line, Trouble) else parse_result(line.decode("utf-8", "replace"))


def parse_result(line: str) -> Result:
    """``NAME: OK`` is clean, ``NAME: VIRUS FOUND`` infected; nothing else is taken for a clean message."""
    if line.strip() == STREAM_LIMIT:
        return Result(Finding.STREAM_LIMIT, line)
    _, mark, result = line.partition(": ")
    if mark and "FOUND" in result:
        return Result(Finding.INFECTED, result.partition("FOUND")[0].strip())
    if mark and result.strip() == "OK":
        return Result(Finding.CLEAN)
    return Result(Finding.UNCLEAR, line)
