"""The protocol SPAMC/1.5 of SpamAssassin's spamd: a request with the message, and an answer with its score.

Source: the PROTOCOL file of SpamAssassin; spec chapter filters-content, 7.3.
"""

from __future__ import annotations

import re
from enum import Enum

import attrs

from smtpf.scanners.connection import CLOSED, Connection, Trouble

PORT = 783
MAX_HEADER_LINES = 100
MAX_REPORT_LINES = 200
"""Lines of a report that are kept; the rest is not read."""

_STATUS = re.compile(rb"SPAMD/1\.[0-9]+ +([0-9]{1,5})(?: .*)?", re.IGNORECASE)
_SCORE = re.compile(
    rb"Spam:[ \t]*(?P<word>[a-z]+)[ \t]*;[ \t]*(?P<score>[+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?)[ \t]*/"
    rb"[ \t]*(?P<threshold>[+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?)[ \t]*",
    re.IGNORECASE,
)


class Step(Enum):
    """Where an answer broke off, or what could not be understood."""

    FIRST_LINE = "first line"
    HEADER = "header"
    STATUS = "status"
    """The first line is not one of this protocol."""
    REFUSED = "refused"
    """spamd says that it could not do what it was asked."""
    SCORE = "score"


@attrs.frozen
class Unusable:
    step: Step
    text: str
    errno: int = 0


@attrs.frozen
class Score:
    score: float
    threshold: float
    report: tuple[str, ...] = ()
    """Lines of the answer's body."""

    @property
    def is_spam(self) -> bool:
        """By the threshold of SpamAssassin's own configuration."""
        return self.score >= self.threshold


def request(command: str, user: str, length: int | None) -> bytes:
    """The head of a request. ``length`` None: the message ends where the writing side is shut down."""
    lines = [f"{command} SPAMC/1.5"]
    if user:
        lines.append(f"User: {user}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("utf-8", "replace")


async def read_answer(connection: Connection, *, with_report: bool) -> Score | Unusable:
    """Await the answer. The report is read only when it is wanted."""
    status = await connection.line()
    if isinstance(status, Trouble):
        return Unusable(Step.FIRST_LINE, status.text, status.errno)
    found = _STATUS.fullmatch(status)
    if found is None:
        return Unusable(Step.STATUS, status.decode("latin-1"))
    if int(found[1]) != 0:
        return Unusable(Step.REFUSED, status.decode("latin-1"))
    score = await _score(connection)
    if isinstance(score, Unusable) or not with_report:
        return score
    return attrs.evolve(score, report=await _report(connection))


async def _score(connection: Connection) -> Score | Unusable:
    """Header lines up to the empty one."""
    score: Score | None = None
    for _ in range(MAX_HEADER_LINES):
        line = await connection.line()
        if line == b"" or (line is CLOSED and score is not None):
            return score or Unusable(Step.SCORE, "no Spam: line")
        if isinstance(line, Trouble):
            return Unusable(Step.HEADER, line.text, line.errno)
        if line[:5].lower() == b"spam:":
            found = _SCORE.fullmatch(line)
            if found is None:
                return Unusable(Step.SCORE, line.decode("latin-1"))
            score = Score(float(found["score"]), float(found["threshold"]))
    return Unusable(Step.SCORE, "too many header lines")


async def _report(connection: Connection) -> tuple[str, ...]:
    lines: list[str] = []
    while len(lines) < MAX_REPORT_LINES:
        line = await connection.line()
        if isinstance(line, Trouble):
            break
        lines.append(line.decode("utf-8", "replace"))
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)
