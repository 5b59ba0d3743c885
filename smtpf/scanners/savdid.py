"""The protocol SSSP/1.0 of Sophos' SAVDI: a greeting each way, SCANFILE with a path, events up to DONE and an empty line.

Source: SAV Dynamic Interface User Manual; spec chapter filters-content, 5.
"""

from __future__ import annotations

from enum import Enum

import attrs

from smtpf.scanners.connection import CLOSED, Connection, Trouble

PORT = 4010
MAX_COMMAND = 512
"""Octets of a command line."""
MAX_EVENTS = 10_000
"""Lines of one answer."""
VERSION = b"SSSP/1.0\n"


class Step(Enum):
    """Where the dialogue broke off."""

    BANNER = "banner"
    GREETING = "greeting"
    REFUSED = "refused"
    """The daemon did not take the protocol or the command."""
    PATH = "path"
    COMMAND = "command"
    RESULT = "result"


@attrs.frozen
class Broken:
    step: Step
    text: str = ""
    errno: int = 0

    @classmethod
    def of(cls, step: Step, trouble: Trouble) -> Broken:
        return cls(step, trouble.text, trouble.errno)


async def scan(connection: Connection, path: str) -> str | Broken:
    """Hold the whole dialogue about one file: the name of the virus, empty when it is clean."""
    banner = await connection.line()
    if isinstance(banner, Trouble):
        return Broken.of(Step.BANNER, banner)
    problem = await connection.send(VERSION)
    if problem is not None:
        return Broken.of(Step.GREETING, problem)
    answer = await connection.line()
    if isinstance(answer, Trouble):
        return Broken.of(Step.RESULT, answer)
    if not answer.startswith(b"ACC "):
        return Broken(Step.REFUSED, _text(answer))
    command = f"SCANFILE {path}\n".encode()
    if len(command) > MAX_COMMAND:
        return Broken(Step.PATH)
    problem = await connection.send(command)
    if problem is not None:
        return Broken.of(Step.COMMAND, problem)
    outcome = await _events(connection)
    if isinstance(outcome, str) and connection.write(b"BYE\n") is None:
        await connection.line()
    return outcome


async def _events(connection: Connection) -> str | Broken:
    """Lines up to an empty one. Without a virus only ``DONE OK`` says that the file is clean."""
    virus = ""
    done = b""
    for _ in range(MAX_EVENTS):
        line = await connection.line()
        if line is CLOSED or line == b"":
            break
        if isinstance(line, Trouble):
            return Broken.of(Step.RESULT, line)
        word, _, rest = line.partition(b" ")
        if word == b"REJ":
            return Broken(Step.REFUSED, _text(line))
        if word == b"VIRUS" and not virus:
            virus = _text(rest).split(" ", 1)[0] or "unknown"
        elif word == b"DONE":
            done = rest
    if virus or done.split(b" ", 1)[0] == b"OK":
        return virus
    return Broken(Step.RESULT, _text(done) or "no result")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
