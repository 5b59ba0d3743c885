"""The header fields in which this node tells of its own part: Received and the report header.

Pure functions of values: the session gathers them at the headers stage. Source: RFC 5321 4.4, RFC 3848, spec chapter
session, 7.3 and 7.4.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from smtpf.message.header import field

MAX_VALUE = 256
"""Characters of a value that somebody else chose, so that no line grows over 998 octets."""

_UNSAFE = re.compile(r"[^\x21-\x7e]")


def with_word(esmtp: bool, tls: bool, authenticated: bool) -> str:
    """The protocol of a Received field: SMTP after HELO, else ESMTP with S for TLS and A for AUTH."""
    if not esmtp:
        return "SMTP"
    return "ESMTP" + ("S" if tls else "") + ("A" if authenticated else "")


def received(
    *,
    helo: str,
    client_name: str,
    client_address: str,
    interface_name: str,
    interface_address: str,
    sender: str,
    protocol: str,
    cipher: str = "",
    tid: str,
    ret_id: str = "none",
    when: float,
) -> bytes:
    """A Received field.

    ``sender`` is the address without brackets, ``protocol`` comes from ``with_word``, ``cipher`` is empty without TLS,
    ``ret_id`` is the outcome of the bounce check at this time, ``when`` is in seconds since the epoch and is written in
    local time.
    """
    by = _safe(interface_name)
    secured = f" ({cipher})" if cipher else ""
    return field(
        "Received",
        f"from {_safe(helo)} ({_safe(client_name)} [{_safe(client_address)}])\r\n"
        f"\tby {by} ({by} [{_safe(interface_address)}]) envelope-from <{_safe(sender)}>\r\n"
        f"\twith {protocol}{secured} id {tid} ret-id {ret_id}; {_date(int(when))}",
    )


def report(
    name: str, *, sid: str, tid: str, client_flags: str, mail_flags: str, rcpt_flags: str, accepted: int, refused: int, fails: int
) -> bytes:
    """The report header ``name``: flags as ``flag_text`` writes them, recipients accepted and refused, 4xy and 5xy so far."""
    return field(
        name,
        f"sid={sid}; tid={tid}; client={client_flags}; mail={mail_flags}; rcpt={rcpt_flags}; nrcpt={accepted}:{refused}; fails={fails}",
    )


@lru_cache(maxsize=4)
def _date(when: int) -> str:
    return formatdate(when, localtime=True)


def _safe(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:
        return text[:MAX_VALUE]
    return _UNSAFE.sub("?", text[:MAX_VALUE])
