"""The protocol of F-PROT's fpscand: SCAN FILE with a path, and one line of result.

Source: spec chapter filters-content, 4.
"""

from __future__ import annotations

import re
from enum import IntFlag

import attrs

from smtpf.scanners.connection import Connection, Trouble

PORT = 10200
MAX_COMMAND = 512
"""Octets of a command line."""

_RESULT = re.compile(r"([0-9]{1,3}) (.*)", re.ASCII | re.DOTALL)


class Bits(IntFlag):
    """What the number at the beginning of a result is made of."""

    INFECTED = 1
    SUSPICIOUS = 2
    INTERRUPTED = 4
    SKIPPED = 8
    RESOURCE_ERROR = 16
    INTERNAL_ERROR = 32
    CLEAN = 64
    DISINFECTED = 128


@attrs.frozen
class Result:
    code: int
    text: str

    @property
    def infected(self) -> bool:
        return bool(self.code & (Bits.INFECTED | Bits.SUSPICIOUS))

    @property
    def failed(self) -> bool:
        """The scan did not come to its end."""
        return not self.infected and bool(self.code & (Bits.INTERRUPTED | Bits.RESOURCE_ERROR | Bits.INTERNAL_ERROR))


def scan_command(path: str) -> bytes | None:
    """The command to scan a file; None when it does not fit in a command line."""
    command = f"SCAN FILE {path}\n".encode()
    return command if len(command) <= MAX_COMMAND else None


async def read_result(connection: Connection) -> Result | str | Trouble:
    """Await the line of result; a line that is none is given as text."""
    line = await connection.line()
    if isinstance(line, Trouble):
        return line
    text = line.decode("utf-8", "replace")
    return parse_result(text) or text


def parse_result(line: str) -> Result | None:
    """``CODE TEXT PATH``; the text ends at the last blank of the line."""
    found = _RESULT.fullmatch(line)
    return Result(int(found[1]), found[2].rpartition(" ")[0]) if found else None
