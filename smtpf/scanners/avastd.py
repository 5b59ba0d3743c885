"""The protocol of the avast! daemon: a banner, SCAN with the path of a file, lines of result, an empty line.

Source: spec chapter filters-content, 3.
"""

from __future__ import annotations

from enum import Enum

import attrs

from smtpf.scanners.connection import CLOSED, Connection, Trouble

PORT = 5037
MAX_COMMAND = 512
"""Octets of a command line."""
MAX_RESULTS = 10_000
"""Lines of one answer: an archive has a line for each of its members."""


class Step(Enum):
    """Where the dialogue broke off."""

    BANNER = "banner"
    COMMAND = "command"
    WRITE = "write"
    RESULT = "result"
    PATH = "path"


@attrs.frozen
class Broken:
    step: Step
    text: str = ""
    errno: int = 0

    @classmethod
    def of(cls, step: Step, trouble: Trouble) -> Broken:
        return cls(step, trouble.text, trouble.errno)


@attrs.frozen
class Report:
    virus: str | None = None
    """Name of the first one; None when there is none."""
    errors: tuple[str, ...] = ()
    """Lines about parts that could not be scanned."""


async def scan(connection: Connection, path: str) -> Report | Broken:
    """Hold the whole dialogue about one file."""
    banner = await connection.line()
    if isinstance(banner, Trouble):
        return Broken.of(Step.BANNER, banner)
    if not banner.startswith(b"220"):
        return Broken(Step.BANNER, _text(banner))
    command = f"SCAN {path}\r\n".encode()
    if len(command) > MAX_COMMAND:
        return Broken(Step.PATH)
    problem = await connection.send(command)
    if problem is not None:
        return Broken.of(Step.WRITE, problem)
    answer = await connection.line()
    if isinstance(answer, Trouble):
        return Broken.of(Step.COMMAND, answer)
    if not answer.startswith(b"200"):
        return Broken(Step.COMMAND, _text(answer))
    report = await _results(connection)
    if isinstance(report, Report):
        connection.write(b"QUIT\r\n")
    return report


async def _results(connection: Connection) -> Report | Broken:
    """Lines up to an empty one. An answer without a single result is none: the daemon died over the file."""
    virus: str | None = None
    errors: list[str] = []
    understood = False
    for _ in range(MAX_RESULTS):
        line = await connection.line()
        if line is CLOSED or line == b"":
            return Report(virus, tuple(errors)) if understood else Broken(Step.RESULT, "no result")
        if isinstance(line, Trouble):
            return Broken.of(Step.RESULT, line)
        _, mark, rest = line.partition(b"\t[")
        letter = rest[:1] if mark else b""
        understood = understood or letter in (b"+", b"L", b"E")
        if letter == b"L" and virus is None:
            virus = _text(rest[3:])
        elif letter == b"E":
            errors.append(_text(line))
    return Broken(Step.RESULT, "too many lines")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
