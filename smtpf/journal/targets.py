"""Where the log goes: options ``log-target`` and ``log-format``, and the target they name.

Source: spec chapter operations, 5.4.
"""

from __future__ import annotations

import socket
from typing import Protocol

import attrs
from twisted.internet.interfaces import IReactorTime

from smtpf.journal import layout
from smtpf.journal.datagram import DatagramTarget
from smtpf.journal.journal import Entry
from smtpf.journal.stream import FileTarget, StreamTarget
from smtpf.settings.option import OptionError, Text
from smtpf.settings.store import Settings

SYSLOG_SOCKET = "/dev/log"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
STANDARD_ERROR = 2

WORDS = ("syslog", "stderr", "journal")


@attrs.frozen(eq=False, kw_only=True)
class Place(Text):
    """``syslog``, ``stderr``, ``journal``, or ``file!`` and an absolute path."""

    def parse(self, text: str) -> str:
        word, mark, path = text.partition("!")
        if not mark and word.lower() in WORDS:
            return word.lower()
        if mark and word.lower() == "file" and path.startswith("/"):
            return f"file!{path}"
        raise OptionError(f"takes {'|'.join(WORDS)}|file!PATH with an absolute path, not {text!r}")


LOG_TARGET = Place(
    "log-target",
    "syslog",
    "Where log lines go: the syslog daemon (facility mail), standard error, the system journal with its named fields, or a file. "
    "With `-daemon` and the default, they go to standard error.",
    choices="syslog|stderr|journal|file!PATH",
    runtime=False,
    area="log",
    since="new",
)
LOG_FORMAT = Text(
    "log-format",
    "text",
    "The form of a log line: `text` is the traditional line; `json` is one object a line with the values of the message by name.",
    choices="text|json",
    words=("text", "json"),
    runtime=False,
    area="log",
    since="new",
)


class OpenTarget(Protocol):
    """A journal target, and how to end it without losing a line."""

    def __call__(self, entry: Entry) -> None: ...

    def close(self) -> None: ...


def choose_target(settings: Settings, daemon: bool) -> str:
    """The value of ``log-target`` that holds: a foreground process that was not told otherwise logs to standard error."""
    place = settings[LOG_TARGET]
    return "stderr" if place == LOG_TARGET.default and not daemon else place


def open_target(
    clock: IReactorTime,
    place: str,
    form: str = "text",
    *,
    syslog_socket: str = SYSLOG_SOCKET,
    journal_socket: str = JOURNAL_SOCKET,
    descriptor: int = STANDARD_ERROR,
    host: str = "",
) -> OpenTarget:
    """The target for a value of ``log-target`` and of ``log-format``. Raises OSError when a log file cannot be opened.

    ``host`` is the machine's name in the lines of a file, by default its first label.
    """
    json = form == "json"
    if place == "syslog":
        return DatagramTarget(clock, syslog_socket, layout.syslog_json if json else layout.syslog)
    if place == "journal":
        return DatagramTarget(clock, journal_socket, layout.native_journal)
    if place == "stderr":
        return StreamTarget(clock, descriptor, layout.json_line if json else layout.foreground_line)
    path = place.partition("!")[2]
    return FileTarget(clock, path, layout.json_line if json else layout.file_line(host or socket.gethostname().partition(".")[0]))
