"""The forms of a log line: syslog's, that of a log file, that of a foreground process, JSON, and the system journal's fields.

Each function here makes one form of an :class:`~smtpf.journal.journal.Entry`; the targets beside this module only carry octets.
Source: spec chapter operations, 5.4; RFC 3164 4.1.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from struct import pack

from smtpf.journal.journal import Entry
from smtpf.journal.message import Level

IDENT = "smtpf"
FACILITY_MAIL = 2
"""RFC 3164 4.1.1: the mail system."""

LEVEL_WORDS = {Level.ERR: "ERROR", Level.WARN: "WARN", Level.INFO: "INFO", Level.DEBUG: "DEBUG"}

RESERVED = frozenset({"time", "pid", "sid", "num", "level", "text"})
"""Keys of a JSON line that a message's own field never takes."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Layout = Callable[[Entry], bytes]


@lru_cache(maxsize=4)
def syslog_time(second: int) -> str:
    """``Feb  7 05:28:04``, local time, whatever the locale."""
    at = time.localtime(second)
    return f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2d} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"


@lru_cache(maxsize=4)
def _foreground_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))


def priority(level: Level) -> int:
    return FACILITY_MAIL * 8 + level


def syslog(entry: Entry) -> bytes:
    """The datagram for ``/dev/log``: RFC 3164 without the host, which the daemon adds."""
    return f"<{priority(entry.message.level)}>{syslog_time(int(entry.time))} {IDENT}[{entry.pid}]: {entry.text}".encode()


def syslog_json(entry: Entry) -> bytes:
    """The datagram for ``/dev/log`` with a JSON object as its text."""
    head = f"<{priority(entry.message.level)}>{syslog_time(int(entry.time))} {IDENT}[{entry.pid}]: "
    return head.encode() + json_object(entry)


def file_line(host: str) -> Layout:
    """Lines for a file, as a syslog daemon would write them on machine ``host``."""

    def line(entry: Entry) -> bytes:
        return f"{syslog_time(int(entry.time))} {host} {IDENT}[{entry.pid}]: {entry.text}\n".encode()

    return line


def foreground_line(entry: Entry) -> bytes:
    """Lines for standard error: ``2008-02-07T05:28:04 smtpf:28585 INFO #599 ready``."""
    return f"{_foreground_time(int(entry.time))} {IDENT}:{entry.pid} {LEVEL_WORDS[entry.message.level]} {entry.text}\n".encode()


def json_object(entry: Entry) -> bytes:
    """One object without a line end: time (local, with offset), pid, sid when there is one, num, level, text, and the named fields."""
    named: dict[str, object] = {
        "time": datetime.fromtimestamp(entry.time).astimezone().isoformat(timespec="milliseconds"),
        "pid": entry.pid,
    }
    if entry.session is not None:
        named["sid"] = entry.session
    named["num"] = entry.message.number
    named["level"] = entry.message.level.name.lower()
    named["text"] = entry.body
    named.update((name, value) for name, value in entry.fields.items() if name not in RESERVED)
    return json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_line(entry: Entry) -> bytes:
    return json_object(entry) + b"\n"


def native_journal(entry: Entry) -> bytes:
    """The datagram of the system journal's native protocol: one field a line, ``SMTPF_`` before the names that are ours."""
    fields = {
        "MESSAGE": entry.text,
        "PRIORITY": int(entry.message.level),
        "SYSLOG_FACILITY": FACILITY_MAIL,
        "SYSLOG_IDENTIFIER": IDENT,
        "SYSLOG_PID": entry.pid,
        "SMTPF_NUM": entry.message.number,
    }
    if entry.session is not None:
        fields["SMTPF_SID"] = entry.session
    for name, value in entry.fields.items():
        fields["SMTPF_" + "".join(mark if mark.isascii() and mark.isalnum() else "_" for mark in name).upper()] = value
    return b"".join(_native_field(name, str(value).encode("utf-8", "replace")) for name, value in fields.items())


def _native_field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
