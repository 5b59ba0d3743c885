"""Which keys a look-up asks for, and in which order.

A map answers exact keys only. That ``connect:192.0.2`` covers a network and ``from:example.com`` its subdomains comes
from the sequences made here: each function gives the texts that follow the tag, from the most particular to the most
general. Address, domain and combination sequences never hold the bare key. Source: spec chapter maps, section 9.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

REMEMBERED = 4096
"""Sequences kept, since one session asks for the same ones under many tags."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GROUPS = re.compile(r"(?<![^:\[])[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){1,7}(?![^:\]])")
"""A run of groups that stands alone: hex letters of names, as in ``bad.example``, are none."""
_PREFIX = re.compile(r"^ipv6:(?=[0-9a-f:]+(?::(?:from|to):|$))")
"""What some write before the address of a client, outside of a literal."""
_LEADING_ZEROS = re.compile(r"(?<![0-9a-f])0+(?=[0-9a-f])")


@lru_cache(maxsize=REMEMBERED)
def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that ``text`` is, also as ``[literal]`` or with ``IPv6:`` in front; a mapped one becomes IPv4."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    if not text or text[0] not in "0123456789abcdefABCDEF:":
        return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


@lru_cache(maxsize=REMEMBERED)
def address_sequence(text: str) -> tuple[str, ...]:
    """``192.0.2.9``: itself, ``192.0.2``, ``192.0``, ``192``; IPv6 by groups. Empty when ``text`` is no IP address."""
    address = parse_address(text)
    if address is None:
        return ()
    if isinstance(address, ipaddress.IPv4Address):
        parts = str(address).split(".")
        return tuple(".".join(parts[:count]) for count in range(4, 0, -1))
    groups = [f"{int(group, 16):x}" for group in address.exploded.split(":")]
    return tuple(dict.fromkeys([str(address), *(":".join(groups[:count]) for count in range(8, 0, -1))]))


@lru_cache(maxsize=REMEMBERED)
def domain_sequence(name: str) -> tuple[str, ...]:
    """``mail.example.com``: itself, ``example.com``, ``com``. A literal is one key; an empty name has none."""
    if not name:
        return ()
    folded = fold_domain(name)
    if folded.startswith("["):
        address = parse_address(folded)
        return (folded,) if address is None else tuple(dict.fromkeys((folded, literal(address))))
    labels = folded.split(".")
    return tuple(".".join(labels[start:]) for start in range(len(labels)))


@lru_cache(maxsize=REMEMBERED)
def mail_sequence(address: str) -> tuple[str, ...]:
    """``John+news@example.com``: itself in lower case, its domain sequence, ``john@``. The null sender has none."""
    if not address:
        return ()
    local, domain = split_mail(address)
    user = without_detail(local, local.rfind("+")) + "@"
    if not domain:
        return (user,)
    return tuple(dict.fromkeys((f"{local}@{fold_domain(domain)}", *domain_sequence(domain), user)))


@lru_cache(maxsize=REMEMBERED)
def sender_sequence(address: str) -> tuple[str, ...]:
    """The sender's side of ``from:...:to:...``. Unlike the recipient's, its user key ends at the first ``+``."""
    if not address:
        return ("",)
    local, domain = split_mail(address)
    user = without_detail(local, local.find("+", 1)) + "@"
    if not domain:
        return tuple(dict.fromkeys((user, local)))
    return tuple(dict.fromkeys((f"{local}@{fold_domain(domain)}", *domain_sequence(domain), user)))


def split_mail(address: str) -> tuple[str, str]:
    """Local part in lower case and domain as it stands, split at the last ``@``; no domain when there is no ``@``."""
    local, at, domain = address.rpartition("@")
    return (local.lower(), domain) if at else (domain.lower(), "")


def without_detail(local: str, plus: int) -> str:
    return local[:plus] if plus > 0 else local


def literal(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """``[192.0.2.9]`` or ``[ipv6:2001:db8::1]``, the form of keys."""
    return f"[{address}]" if address.version == 4 else f"[ipv6:{address}]"


def fold_domain(name: str) -> str:
    """A domain as keys have it: lower case, no final dot, U-labels as A-labels (RFC 5890)."""
    folded = name.lower()
    if folded.endswith("."):
        folded = folded[:-1]
    return folded if folded.isascii() else a_labels(folded)


def a_labels(name: str) -> str:
    """``name`` with its U-labels encoded; as it stands when it is not a domain of the world."""
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return name


def fold_mail(address: str) -> str:
    """A mail address as patterns see it: domain in lower case, local part as given."""
    local, at, domain = address.rpartition("@")
    return f"{local}@{fold_domain(domain)}" if at else address


def normal_key(key: str) -> str:
    """A key of a map file as look-ups ask for it: lower case, IPv6 groups without leading zeros, domains in A-labels.

    A key with ``::`` keeps its groups; ``ipv6:`` before an address goes.
    """
    folded = key.lower()
    tag, colon, rest = folded.partition(":")
    if not colon:
        return folded
    if not rest.isascii():
        rest = ":".join(map(_encode_part, rest.split(":")))
    elif ":" in rest:
        rest = _PREFIX.sub("", rest)
        if "::" not in rest:
            rest = _GROUPS.sub(_shorten, rest)
    return f"{tag}:{rest}"


def _encode_part(part: str) -> str:
    local, at, domain = part.rpartition("@")
    return part if domain.isascii() else f"{local}{at}{a_labels(domain)}"


def _shorten(found: re.Match[str]) -> str:
    return _LEADING_ZEROS.sub("", found.group())


def has_control(key: str) -> bool:
    """True when no map can hold this key, because a control character is in it."""
    return _CONTROL.search(key) is not None
