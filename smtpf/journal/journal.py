"""The log: every numbered message passes here on its way to syslog, standard error, a file or the system journal.

The journal decides whether a message is wanted (``verbose``), makes its arguments harmless, forms the text and hands one
:class:`Entry` to the target. It never raises and never waits: a log that cannot be written must not stop mail.
Source: spec chapter operations, section 5.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from smtpf.journal.message import Message, err
from smtpf.journal.verbose import LONGEST, Verbose

LONGEST_VALUE = 1000
"""Octets of one value in a log line; the rest is cut."""

LONGEST_TRACEBACK = 8000
"""Characters of a traceback in the structured log."""
TRACEBACK = "traceback"
"""The one named value that has lines; a form of the log must carry them."""

INTERNAL_ERROR = err(
    539,
    "internal error %s(%lu) %s: %s (%d)",
    "The program met a situation it was not written for. The session concerned answers with a temporary failure, so no mail is lost. "
    "Please report the line; the JSON log also has the traceback.",
    fields=("module", "line", "error", "reason", "errno"),
)

VERBOSE_TOO_LONG = err(
    795,
    "verbose word list too long",
    "The value of option `verbose` is longer than 4096 octets. At start this ends the program.",
)

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Entry:
    """One line of the log, before a target gives it its form."""

    __slots__ = ("args", "body", "extra", "message", "pid", "session", "time")

    def __init__(
        self, time: float, pid: int, message: Message, args: tuple[Any, ...], session: str | None, body: str, extra: dict[str, Any]
    ) -> None:
        self.time = time
        """Unix seconds."""
        self.pid = pid
        self.message = message
        self.args = args
        """As they stand in the text: numbers, and harmless strings."""
        self.session = session
        self.body = body
        """The format with its arguments."""
        self.extra = extra
        """As the writer gave them."""

    @property
    def text(self) -> str:
        """``<session-id> #<number> <text>``, or without the session id."""
        if self.session is None:
            return f"#{self.message.number:03d} {self.body}"
        return f"{self.session} #{self.message.number:03d} {self.body}"

    @property
    def fields(self) -> dict[str, Any]:
        """The named values: those of the format by ``Message.fields``, then those the writer added."""
        named = dict(zip(self.message.fields, self.args, strict=False))
        named.update((name, value if name == TRACEBACK else harmless(value)) for name, value in self.extra.items())
        return named

    def __str__(self) -> str:
        return self.text


Target = Callable[[Entry], None]
"""Takes an entry and writes it somewhere, without waiting and without raising."""


class Journal:
    """The log of this process. One object, handed to everything that logs."""

    __slots__ = ("_levels", "_now", "_pid", "_target", "verbose")

    def __init__(self, target: Target, verbose: Verbose | None = None, *, now: Callable[[], float] = time.time, pid: int = 0) -> None:
        """``now`` gives Unix seconds; ``pid`` 0 is that of this process, asked at each line: a daemon forks after its start."""
        self._target = target
        self.verbose = Verbose() if verbose is None else verbose
        self._levels = self.verbose.levels
        self._now = now
        self._pid = pid

    def enabled(self, message: Message) -> bool:
        """Whether ``message`` would be written now. Ask before collecting costly arguments."""
        return message.always or self._levels.get(message.word, 0) >= message.at_least

    def write(self, message: Message, *args: Any, session: str | None = None, **fields: Any) -> None:
        """Write ``message`` with the arguments of its format, if it is wanted.

        ``session`` is the session id that precedes the number; ``fields`` are further named values for the structured log.
        """
        if not (message.always or self._levels.get(message.word, 0) >= message.at_least):
            return
        # What needs no look from close by is most of what is written.
        safe = tuple([
            arg if (kind := type(arg)) is int or (kind is str and len(arg) <= LONGEST_VALUE and arg.isascii() and arg.isprintable())
            else harmless(arg)
            for arg in args
        ])  # fmt: skip
        try:
            body = message.format % safe
        except (TypeError, ValueError, OverflowError) as reason:
            body = f"{message.format} {' '.join(map(str, safe))}"
            self.write(INTERNAL_ERROR, "journal", message.number, "format", reason, 0, session=session)
        if session is None and message is INTERNAL_ERROR:
            session = "0"
        self._target(Entry(self._now(), self._pid or os.getpid(), message, safe, session, body, fields))

    def failure(self, failure: Failure, session: str | None = None, doing: str = "") -> None:
        """Write #539 for an exception nobody expected. ``doing`` tells what was being done."""
        module, line = _innermost(failure)
        kind = failure.type.__name__ if failure.type is not None else "Failure"
        errno = getattr(failure.value, "errno", None)
        args = (
            module,
            line,
            harmless(f"{doing}: {kind}" if doing else kind),
            harmless(failure.getErrorMessage()),
            errno if isinstance(errno, int) else 0,
        )
        extra = {TRACEBACK: failure.getTraceback()[-LONGEST_TRACEBACK:]}
        session = "0" if session is None else session
        body = INTERNAL_ERROR.format % args
        self._target(Entry(self._now(), self._pid or os.getpid(), INTERNAL_ERROR, args, session, body, extra))

    def use_words(self, text: str) -> list[str] | None:
        """Take ``text`` as the new value of option ``verbose``. Returns the words nobody knows.

        None, with #795 logged and nothing changed, when the text is too long.
        """
        if len(text.encode("utf-8", "replace")) > LONGEST:
            self.write(VERBOSE_TOO_LONG)
            return None
        return self.verbose.reset(text)


def harmless(value: Any) -> Any:
    """``value`` as it may stand in a log line: numbers as they are; else text without control characters, at most 1000 octets of UTF-8."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
    elif isinstance(value, int | float):
        return value
    else:
        text = str(value)
    if text.isascii() and text.isprintable():
        return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE]
    text = _UNSAFE.sub("?", text[:LONGEST_VALUE])
    return text.encode("utf-8", "replace")[:LONGEST_VALUE].decode("utf-8", "ignore")


def _innermost(failure: Failure) -> tuple[str, int]:
    """Module and line where the exception was raised."""
    frames = failure.frames
    if not frames:
        return "?", 0
    name, path, line = frames[-1][:3]
    parts = os.path.splitext(str(path))[0].split(os.sep)
    if "smtpf" in parts:
        return ".".join(parts[len(parts) - 1 - parts[::-1].index("smtpf") :]), int(line)
    return str(parts[-1] or name), int(line)
