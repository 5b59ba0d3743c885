"""What a log message is: number, level, format and explanation, declared once beside the code that writes it.

A module declares its messages as module constants and writes one with ``session.log(LISTED, key, seconds)``
or, outside a session, ``journal.write(LISTED, key, seconds)``. Formats use the printf conversions of the published
message list and never change once published. Source: spec chapter operations, section 5.
"""

from __future__ import annotations

from enum import IntEnum

import attrs


class Level(IntEnum):
    """Severity, by syslog's numbers (RFC 5424 6.2.1)."""

    ERR = 3
    WARN = 4
    INFO = 6
    DEBUG = 7


@attrs.frozen(eq=False)
class Message:
    """One numbered log message.

    ``word`` is the verbose word that turns it on, ``at_least`` the level that word needs. ERR messages are
    always written; WARN obeys ``warn``; INFO obeys ``info`` unless ``always``.
    """

    number: int
    level: Level
    format: str
    explanation: str = attrs.field(default="", kw_only=True)
    """For the postmaster: when it is written and what to do about it."""
    word: str = attrs.field(kw_only=True)
    at_least: int = attrs.field(default=1, kw_only=True)
    always: bool = attrs.field(kw_only=True)
    fields: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    """Names of the arguments in the structured log, in the order of the format."""
    since: str = attrs.field(default="seed", kw_only=True)

    @word.default
    def _word(self) -> str:
        return {Level.WARN: "warn", Level.INFO: "info"}.get(self.level, "debug")

    @always.default
    def _always(self) -> bool:
        return self.level is Level.ERR


def err(number: int, format: str, explanation: str = "", *, fields: tuple[str, ...] = (), since: str = "seed") -> Message:
    return Message(number, Level.ERR, format, explanation=explanation, fields=fields, since=since)


def warn(number: int, format: str, explanation: str = "", *, fields: tuple[str, ...] = (), since: str = "seed") -> Message:
    return Message(number, Level.WARN, format, explanation=explanation, fields=fields, since=since)


def info(
    number: int,
    format: str,
    explanation: str = "",
    *,
    always: bool = False,
    word: str = "info",
    fields: tuple[str, ...] = (),
    since: str = "seed",
) -> Message:
    return Message(number, Level.INFO, format, explanation=explanation, word=word, always=always, fields=fields, since=since)


def debug(number: int, format: str, word: str, explanation: str = "", *, at_least: int = 1, since: str = "later") -> Message:
    return Message(number, Level.DEBUG, format, explanation=explanation, word=word, at_least=at_least, since=since)
