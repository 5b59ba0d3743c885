"""Does a host name look generated from its IP address, as providers name the dynamic addresses of their customers?

The number of the rule that hits is returned, 0 for none. False hits are part of the design: the test is a hint, and
the options that use it are off by default. Source: spec chapter filters-envelope, 6.4; session, 5.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from string import hexdigits, punctuation

HEX, DECIMAL, OCTAL = 1, 2, 3
LEADING_HEX, LEADING_DECIMAL, PADDED_OCTET, PLAIN_OCTET, LAST_TWO = 5, 6, 7, 8, 9
HEX_PAIR, DECIMAL_PAIR, OCTAL_PAIR = 10, 11, 12
IPV6 = 14
LEAST_HEX_DIGITS = 8
"""Fewer digits of an IPv6 address in a name prove nothing."""

_PUNCTUATION = frozenset(punctuation)
_HEX = frozenset(hexdigits)

_WHOLE_FORMS = ((HEX, "%08x", "%x", "%02x%02x"), (DECIMAL, "%u", "%u", "%03u%03u"), (OCTAL, "%o", "%o", "%03o%03o"))
_PAIR_FORMS = ((HEX_PAIR, "%02x-%02x"), (DECIMAL_PAIR, "%u-%u"), (OCTAL_PAIR, "%03o-%03o"))


def search(text: str, pattern: str) -> int:
    """Where ``pattern`` occurs in ``text``, punctuation tolerated between its hexadecimal digits; -1 when nowhere."""
    start = text.find(pattern[0])
    while start >= 0:
        at, done = start + 1, 1
        while done < len(pattern) and at < len(text):
            here, wanted = text[at], pattern[done]
            if here in _PUNCTUATION:
                if wanted in _HEX:
                    at += 1
                    continue
                if wanted not in _PUNCTUATION:
                    break
            elif here != wanted:
                break
            at += 1
            done += 1
        if done == len(pattern):
            return start
        start = text.find(pattern[0], start + 1)
    return -1


def ip_in_name(name: str, address: str | IPv4Address | IPv6Address) -> int:
    """Number of the rule by which ``name`` holds ``address``, 0 for none.

    ``name`` is lower case without final dot.
    """
    given = ip_address(address) if isinstance(address, str) else address
    if isinstance(given, IPv6Address):
        mapped = given.ipv4_mapped
        return _rule_ipv6(name, given) if mapped is None else _rule_ipv4(name, mapped)
    return _rule_ipv4(name, given)


def _rule_ipv4(name: str, address: IPv4Address) -> int:
    if not name:
        return 0
    number = int(address)
    octets = tuple(address.packed)
    high, low = number >> 16, number & 0xFFFF
    pairs = tuple((octets[i], octets[j]) for i, j in ((0, 1), (1, 2), (2, 3), (3, 2), (2, 1), (1, 0)))
    for rule, whole, half, pair in _WHOLE_FORMS:
        forms = [whole % number, *(half % value for value in (high, low) if value > 255), *(pair % two for two in pairs)]
        if any(search(name, form) >= 0 for form in forms):
            return rule
    for rule, pair in _PAIR_FORMS:
        if any(search(name, pair % two) >= 0 for two in pairs):
            return rule
    return _rule_last_octets(name, octets[2], octets[3])


def _rule_last_octets(name: str, third: int, last: int) -> int:
    if len(name) > 1 and name[0] in _HEX and name[1] in _HEX and name[2:3] not in _HEX and int(name[:2], 16) == last:
        return LEADING_HEX
    digits = 0
    while digits < 3 and name[digits : digits + 1].isdecimal():
        digits += 1
    if digits and int(name[:digits]) == last:
        return LEADING_DECIMAL
    if search(name, f"-{last:03d}.") >= 0:
        return PADDED_OCTET
    if search(name, f"-{last}.") >= 0:
        return PLAIN_OCTET
    found = search(name, str(third))
    if found >= 0 and search(name[found + 1 :], str(last)) >= 0:
        return LAST_TWO
    return 0


def _rule_ipv6(name: str, address: IPv6Address) -> int:
    return IPV6 if any(search(name, form) >= 0 for form in _forms_ipv6(address)) else 0


def _forms_ipv6(address: IPv6Address) -> Iterator[str]:
    """The texts that give an IPv6 address away: its lower half or all of it, padded, by groups, or backwards."""
    groups = address.exploded.split(":")
    short = [group.lstrip("0") or "0" for group in groups]
    lower = "".join(groups[4:])
    whole = "".join(groups)
    for form in (lower, lower[::-1], whole, whole[::-1], "-".join(short[4:]), "-".join(short), address.compressed.replace(":", "-")):
        if sum(mark in _HEX for mark in form) >= LEAST_HEX_DIGITS:
            yield form
