"""The protocol of the Commtouch daemon ctasd: an HTTP/1.0 POST, and header lines in the body of the answer.

Source: spec chapter filters-content, 6.
"""

from __future__ import annotations

import re

import attrs

from smtpf.scanners.connection import CLOSED, Connection, Trouble

PORT = 8088
BY_FILE = "/ctasd/ClassifyMessage_File"
INLINE = "/ctasd/ClassifyMessage_Inline"
MAX_LINES = 200
"""Lines of an answer, its HTTP header included."""

_STATUS = re.compile(rb"HTTP/1\.[0-9] 2[0-9][0-9](?: .*)?")
_FIELD = re.compile(r"X-CTCH-(VOD|Spam|RefID):[ \t]*(.*?)[ \t]*", re.IGNORECASE)


@attrs.frozen
class Classification:
    """What ctasd thinks of a message, in its own words; empty when not given."""

    vod: str = ""
    spam: str = ""
    ref_id: str = ""


def facts(sender: str, address: str, path: str = "") -> bytes:
    """The lines about the message that stand in front of it, or in its place when ``path`` names its file."""
    lines = ["X-CTCH-PVer: 0000001", f"X-CTCH-MailFrom: {sender}", f"X-CTCH-SenderIP: {address}"]
    if path:
        lines.append(f"X-CTCH-Filename: {path}")
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")


def request(url: str, host: str, length: int) -> bytes:
    """The head of the POST; ``length`` are the octets of its body."""
    return f"POST {url} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n".encode()


async def read_answer(connection: Connection) -> Classification | Trouble | str:
    """Await the answer; one that cannot be understood is given as text."""
    status = await connection.line()
    if isinstance(status, Trouble):
        return status
    if not _STATUS.fullmatch(status):
        return status.decode("latin-1")
    found: dict[str, str] = {}
    in_body = False
    for _ in range(MAX_LINES):
        line = await connection.line()
        if line is CLOSED:
            break
        if isinstance(line, Trouble):
            return line
        in_body = in_body or not line
        match = _FIELD.fullmatch(line.decode("latin-1")) if in_body else None
        if match is not None:
            found.setdefault(match[1].lower(), match[2])
    if not found:
        return "no classification"
    return Classification(found.get("vod", ""), found.get("spam", ""), found.get("refid", ""))
