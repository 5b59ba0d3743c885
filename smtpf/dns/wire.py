"""DNS messages on the wire: a question out of a name, an answer out of untrusted octets.

Stands on the wire classes of ``twisted.names`` and adds what they lack: EDNS0, comparison of the question, and an
answer reduced to the records on the owner chain of the question (RFC 1035 4.1, RFC 6891, RFC 5452 9.1).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable
from typing import Any, cast

import attrs
from twisted.names import dns

from smtpf.dns.answer import RCODES, Answer, Mx, Record, Soa, Status, Target, Txt

UDP_SIZE = 1232
"""Octets of a UDP answer that we invite (EDNS0); fits every path without fragments."""
MAX_CHAIN = 10
"""CNAMEs followed, over all answers to one question."""
MAX_RECORDS = 200
"""Records of an answer that are kept."""
MAX_TTL = 86400
MAX_NEGATIVE_TTL = 10800
"""Seconds; RFC 2308 5 wants one to three hours at most."""

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}

_OPT = struct.pack("!BHHIH", 0, 41, UDP_SIZE, 0, 0)
_ESCAPED = re.compile(r"\\(\d{3}|.)", re.DOTALL)
_ODD = re.compile(rb"[^!-\[\]-~]")
_CNAME = dns.CNAME
_IN = dns.IN


def plain_name(name: str) -> str:
    """The form of ``name`` that answers and caches use: A-labels, lower case, no final dot."""
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return name.lower()
    name = name.lower()
    return name[:-1] if name.endswith(".") and not name.endswith("\\.") else name


def wire_name(name: str) -> bytes | None:
    """Octets of a plain name, None when it cannot be a DNS name (RFC 1035 2.3.4)."""
    if name == "":
        return b"\0"
    try:
        octets = name.encode("ascii")
    except UnicodeError:
        return None
    parts = []
    for label in octets.split(b"."):
        if b"\\" in label:
            label = _unescape(label)
        if not 0 < len(label) < 64:
            return None
        parts.append(bytes((len(label),)) + label)
    encoded = b"".join(parts) + b"\0"
    return encoded if len(encoded) <= 255 else None


def _unescape(label: bytes) -> bytes:
    def octet(found: re.Match[str]) -> str:
        text = found[1]
        return chr(int(text) & 255) if len(text) == 3 else text

    return _ESCAPED.sub(octet, label.decode("latin-1")).encode("latin-1")


def shown_name(octets: bytes) -> str:
    """A decoded name as text, case kept, octets that could harm a log line escaped."""
    if _ODD.search(octets):
        octets = _ODD.sub(lambda found: b"\\%03d" % found[0][0], octets)
    return octets.decode("ascii")


def question(ident: int, name: bytes, rtype: int, edns: bool = True) -> bytes:
    """A query with recursion desired. ``name`` is in wire form."""
    header = struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 1 if edns else 0)
    return header + name + struct.pack("!HH", rtype, 1) + (_OPT if edns else b"")


@attrs.frozen
class Response:
    """A message that answers our question: right id, same question."""

    rcode: int
    truncated: bool
    answers: tuple[dns.RRHeader, ...]
    authority: tuple[dns.RRHeader, ...]


def response(octets: bytes, ident: int, name: bytes, rtype: int) -> Response | None:
    """The response in ``octets``; None when it is malformed or answers something else."""
    if len(octets) < 12:
        return None
    got, flags, questions = struct.unpack_from("!HHH", octets)
    if got != ident or not flags & 0x8000 or flags & 0x7800:
        return None
    rcode = flags & 15
    if questions == 0 and rcode == 1:
        return Response(rcode, False, (), ())  # some servers that know no EDNS0 send back the bare header
    end = 12 + len(name)
    if questions != 1 or octets[12:end].lower() != name.lower() or octets[end : end + 4] != struct.pack("!HH", rtype, 1):
        return None
    if flags & 0x0200:
        return Response(rcode, True, (), ())
    message = dns.Message()
    try:
        message.fromStr(octets)
    except Exception:  # any octets may come, and the decoder raises whatever it stumbles on
        return None
    return Response(rcode, False, tuple(message.answers[:MAX_RECORDS]), tuple(message.authority[:MAX_RECORDS]))


def answer(asked: str, rtype: str, got: Response, already: Iterable[Target] = ()) -> Answer:
    """Reduce ``got`` to an Answer for the name ``asked``.

    ``already`` holds the CNAMEs followed before this response. The chain may end at a name that the response
    says nothing about: status NODATA, a non-empty chain and no ``authority`` mean that its end is to be asked for.
    """
    if got.rcode not in (0, 3):
        return Answer(asked, rtype, RCODES.get(got.rcode, Status.OTHER), rcode=got.rcode)
    wanted = TYPES[rtype]
    chain = list(already)
    name = chain[-1].name if chain else asked
    seen = {asked, *(target.name for target in chain)}
    owners: dict[str, list[dns.RRHeader]] = {}
    for header in got.answers:
        if header.cls == _IN:
            owners.setdefault(shown_name(header.name.name).lower(), []).append(header)
    ttl = MAX_TTL
    records: tuple[Record, ...] = ()
    while True:
        here = owners.get(name, ())
        found = [header for header in here if header.type == wanted]
        if found:
            records = tuple(record for record in (typed(header) for header in found) if record is not None)
            ttl = min(ttl, *(header.ttl for header in found))
            break
        alias = next((header for header in here if header.type == _CNAME), None)
        if alias is None:
            break
        target = _target(cast("Any", alias.payload).name.name)
        ttl = min(ttl, alias.ttl)
        if target.name in seen or len(chain) >= MAX_CHAIN:
            return Answer(asked, rtype, Status.NODATA, (), tuple(chain), None, ttl)  # a loop is as good as nothing
        chain.append(target)
        seen.add(target.name)
        name = target.name
    if records:
        return Answer(asked, rtype, Status.OK, records, tuple(chain), None, max(0, ttl))
    authority, negative = _authority(got.authority, name)
    status = Status.NXDOMAIN if got.rcode == 3 else Status.NODATA
    return Answer(asked, rtype, status, (), tuple(chain), authority, max(0, min(ttl, negative)), got.rcode)


def _authority(headers: Iterable[dns.RRHeader], name: str) -> tuple[Soa | None, int]:
    """The SOA that stands for a negative answer about ``name``, and its time to live (RFC 2308 5)."""
    for header in headers:
        if header.type == dns.SOA and header.cls == _IN:
            record = typed(header)
            if isinstance(record, Soa) and (record.owner in ("", name) or name.endswith("." + record.owner)):
                return record, min(header.ttl, record.minimum, MAX_NEGATIVE_TTL)
    return None, MAX_TTL


def _target(octets: bytes) -> Target:
    shown = shown_name(octets)
    return Target(shown.lower(), shown + ".")


def typed(header: dns.RRHeader) -> Record | None:
    """The record as a value, None when its data make no sense."""
    payload: Any = header.payload
    kind = header.type
    try:
        if kind == 1:
            return str(payload.dottedQuad())
        if kind == 28:
            return str(ipaddress.IPv6Address(payload.address))
        if kind == 15:
            target = _target(payload.name.name)
            return Mx(payload.preference, target.name, target.original)
        if kind in (2, 5, 12):
            return _target(payload.name.name)
        if kind == 16:
            return Txt(b"".join(payload.data))
        if kind == 6:
            owner = shown_name(header.name.name).lower()
            primary = shown_name(payload.mname.name).lower()
            mailbox = shown_name(payload.rname.name).lower()
            times = (payload.serial, payload.refresh, payload.retry, payload.expire, payload.minimum)
            return Soa(owner, primary, mailbox, *times)
    except (ValueError, TypeError, AttributeError, OSError):
        return None
    return None
