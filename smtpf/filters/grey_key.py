"""The grey-list key: which facts of a session and its message say that somebody has come back.

Pure functions of a session, used by grey-listing and by the note of clients that have passed before. Source: spec chapter
filters-envelope, 16.3.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence

import attrs

from smtpf.dns.domains import Domains
from smtpf.smtp.grammar import Path
from smtpf.smtp.session import ClientFlag, Session, SpfResult, Transaction

ELEMENTS = ("ip", "ptr", "ptrn", "helo", "helos", "p0f", "mail", "rcpt")
"""In the order of the key."""
OF_THE_HOST = ("ip", "ptr", "ptrn")
"""Elements that tell one host, or one pool of hosts, from another."""
PREFIX = "grey:"
MAX_KEY = 383
"""Octets of a key."""
DIGEST = 32
"""Hexadecimal digits that stand for the rest of a longer key."""


@attrs.frozen
class GreyKey:
    """The keys of one message and one of its recipients."""

    full: str
    """With prefix, at most ``MAX_KEY`` octets."""
    host: str
    """What proves that the host retries; empty when the key has no such part."""
    truncated: bool = False


def chosen(words: tuple[str, ...]) -> tuple[str, ...]:
    """The elements that an option value names, in the order of the key. ``-word`` and ``!word`` take one out again."""
    wanted: set[str] = set()
    for word in words:
        sign, name = (word[0], word[1:]) if word[:1] in ("+", "-", "!") else ("+", word)
        if sign == "+":
            wanted.add(name.lower())
        else:
            wanted.discard(name.lower())
    return tuple(element for element in ELEMENTS if element in wanted)


def host_elements(elements: Sequence[str]) -> int:
    """How many elements the host key has; 0 when there is none."""
    count = 2 if "helos" in elements else 1
    return count if len(elements) > count and any(element in OF_THE_HOST for element in elements) else 0


def make_key(
    elements: Sequence[str], domains: Domains, session: Session, transaction: Transaction | None, recipient: Path | None
) -> GreyKey:
    """The key for ``recipient``, who is None when the key does not name recipients. Before MAIL only the host key has a meaning."""
    texts = [_text(element, domains, session, transaction, recipient).lower() for element in elements]
    full = PREFIX + ",".join(texts)
    count = host_elements(elements)
    host = _limited(PREFIX + ",".join(texts[:count])) if count else ""
    limited = _limited(full)
    return GreyKey(limited, host, limited != full)


def _limited(key: str) -> str:
    """A longer key keeps its begin, and a digest of the whole keeps it apart from others."""
    octets = key.encode("utf-8", "surrogateescape")
    if len(octets) <= MAX_KEY:
        return key
    return octets[: MAX_KEY - DIGEST].decode("utf-8", "ignore") + hashlib.sha256(octets).hexdigest()[:DIGEST]


def _text(element: str, domains: Domains, session: Session, transaction: Transaction | None, recipient: Path | None) -> str:
    match element:
        case "ip":
            return _address(session)
        case "ptr":
            return domains.ptr_suffix(session.name) if _trusts_name(session, transaction) else _address(session)
        case "ptrn":
            return domains.compacted(session.name) if _trusts_name(session, transaction) else _address(session)
        case "helo":
            return session.helo
        case "helos":
            return domains.ptr_suffix(session.helo)
        case "p0f":
            return session.p0f_os or "(unknown)"
        case "mail":
            return _mailbox(transaction.sender if transaction is not None else None)
        case _:
            return _mailbox(recipient)


def _address(session: Session) -> str:
    """IPv6 clients change the lower half of their address at will."""
    if session.ip.version == 4:
        return session.address
    return str(ipaddress.IPv6Network((int(session.ip) >> 64 << 64, 64)))


def _trusts_name(session: Session, transaction: Transaction | None) -> bool:
    """The client's name may stand for it: it is confirmed, not made from the address, and SPF does not speak against it."""
    flags = session.flags
    if not session.name or ClientFlag.FORGED in flags or ClientFlag.IP_IN_PTR in flags or ClientFlag.PTR_MULTIDOMAIN in flags:
        return False
    if ClientFlag.NO_PTR in flags and ClientFlag.HELO_HOST not in flags:
        return False
    return transaction is None or transaction.spf_mail not in (SpfResult.FAIL, SpfResult.SOFTFAIL)


def _mailbox(path: Path | None) -> str:
    return "@" if path is None else f"{path.mailbox}@{path.domain}"
