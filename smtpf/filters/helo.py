"""Tests of the name that a client gives itself in HELO or EHLO.

Malformed names are refused always; names that are no full host names, reserved, ours, somebody else's address, or just the
generated reverse name by option. Known clients are not tested, except that trusted ones with a bad name are noted in the log.
Source: RFC 5321 2.3.5 and 4.1.3; spec chapters filters-envelope, 7; session, 5.2 and 5.3.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from smtpf.dns.classes import is_lan, is_this_net, judged
from smtpf.dns.domains import is_reserved_helo
from smtpf.filters.postponing import AUTH_DELAY_CHECKS, CLIENT_IS_MX
from smtpf.filters.reserved import RFC2606_SPECIAL_DOMAINS
from smtpf.journal.message import warn
from smtpf.maps.routes import RouteMap
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, drop, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import ClientFlag, Recipient, Session, SpfResult, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

HELO_CLAIMS_US = Flag(
    "helo-claims-us", True, "Refuse clients that give one of our own domains as their name and are not of it.", area="helo"
)
HELO_IP_MISMATCH = Flag("helo-ip-mismatch", False, "Refuse clients that give another IP address than theirs as their name.", area="helo")
HELO_IS_PTR = Flag(
    "helo-is-ptr", False, "Refuse clients whose name is their reverse name, when that looks generated from their address.", area="helo"
)
RFC2821_STRICT_HELO = Flag(
    "rfc2821-strict-helo", True, "Refuse clients whose name is neither a full host name nor an address in brackets.", area="rfc"
)

NOT_FQDN = warn(
    429,
    "%s [%s] HELO %s is not FQDN",
    "A client of our own gives a name that other servers may refuse. Set the host name of that machine.",
    fields=("client", "address", "helo"),
)

BOGUS = Reply(423, "501 5.5.4 invalid HELO %s", meaning="The HELO argument holds a character that no host name or address has.")
IP_MISMATCH = Reply(
    424, "550 5.7.0 HELO %s does not match client %s [%s]", meaning="helo-ip-mismatch: the HELO argument is another host's address."
)
RESERVED = Reply(
    427, "550 5.7.0 HELO %s from RFC2606 reserved domain", meaning="rfc2606-special-domains: no host of the Internet has that name."
)
NOT_STRICT = Reply(
    428,
    "550 5.7.0 HELO %s argument must be a FQDN or IP-domain literal",
    meaning="rfc2821-strict-helo: the HELO argument is no full host name.",
)
CLAIMS_US = Reply(
    430, '550 5.7.0 %s [%s] claims to be us "%s"', meaning="helo-claims-us: a foreign client gives a name in a domain routed here."
)
IS_PTR = Reply(
    432, "550 5.7.0 HELO %s equivalent to client IP-in-PTR", meaning="helo-is-ptr: client and HELO have the same generated name."
)

BOGUS_HELO = Counter("bogus-helo", Group.CONNECT, "HELO arguments with wrong characters or in a reserved domain.")
HELO_CLAIMS_US_HIT = Counter("helo-claims-us", Group.CONNECT, "Foreign clients with a HELO name of ours.")
HELO_IP_MISMATCH_HIT = Counter("helo-ip-mismatch", Group.CONNECT, "HELO arguments that are another host's address.")
HELO_IS_PTR_HIT = Counter("helo-is-ptr", Group.CONNECT, "HELO arguments equal to a generated reverse name.")
STRICT_HELO_HIT = Counter("rfc2821-strict-helo", Group.CONNECT, "HELO arguments that are no full host name.")

_PERMITTED = re.compile(r"[A-Za-z0-9.:_\[\]-]+")
_OCTAL = re.compile(r"0[0-7]+")
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_HEXADECIMAL = re.compile(r"0[xX][0-9A-Fa-f]+")
_LARGEST = 0xFFFFFFFF
REMEMBERED = 1024
"""HELO arguments of which is remembered what address they are."""


@lru_cache(maxsize=REMEMBERED)
def helo_address(argument: str) -> IPv4Address | IPv6Address | None:
    """The address that a HELO argument is: bare or in brackets, ``IPv6:`` in front or not, or one number of 32 bits."""
    text = argument[1:-1] if argument.startswith("[") and argument.endswith("]") else argument
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        number = _number(argument)
        return IPv4Address(number) if 0 <= number <= _LARGEST else None


def _number(text: str) -> int:
    """A string that is nothing but a number, -1 for any other. Longer ones than an address has are none."""
    if len(text) > 13:
        return -1
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    return int(text) if _DECIMAL.fullmatch(text) else -1


def is_full_name(argument: str) -> bool:
    """A name with a dot that is not at its end, or an address in brackets."""
    if helo_address(argument) is not None:
        return argument.startswith("[")
    dot = argument.find(".")
    return 0 <= dot < len(argument) - 1


class Helo(Filter):
    """Judges the HELO argument."""

    def __init__(self, resolver: Resolver, routes: RouteMap) -> None:
        self._resolver = resolver
        self._routes = routes

    def note_trusted(self, session: Session) -> None:
        """Trusted clients skip the tests of this stage; tell the postmaster of a name that others will refuse."""
        if session.trusted and session.settings[RFC2821_STRICT_HELO] and not is_full_name(session.helo):
            session.log(NOT_FQDN, session.name, session.address, session.helo)

    def syntax(self, session: Session) -> MaybeVerdict:
        """Characters; then what the argument is, which later tests go by; then whether it is another host's address."""
        flags, argument = session.flags, session.helo
        if not _PERMITTED.fullmatch(argument):
            session.count(BOGUS_HELO)
            return reject(BOGUS, argument)
        flags.discard(ClientFlag.HELO_IP)
        flags.discard(ClientFlag.HELO_HOST)
        if ClientFlag.NO_PTR in flags:
            session.name = ""
            if not session.private:
                flags.add(ClientFlag.FORGED)
        address = helo_address(argument)
        if address is None:
            return self._look_up(session)
        flags.add(ClientFlag.HELO_IP)
        given = judged(address)
        if not session.settings[HELO_IP_MISMATCH] or is_lan(given) or is_this_net(given) or given == judged(session.ip):
            return None
        session.count(HELO_IP_MISMATCH_HIT)
        return drop(IP_MISMATCH, argument, session.name, session.address, delay=True, whole_session=True, fact=str(given))

    async def _look_up(self, session: Session) -> None:
        """A name that leads to the client is as good as a reverse name, and is confirmed by that."""
        found = await self._resolver.addresses(session.helo)
        if session.address in found.addresses:
            session.flags.add(ClientFlag.HELO_HOST)
            if ClientFlag.NO_PTR in session.flags:
                session.name = session.helo.lower().rstrip(".")
                session.flags.discard(ClientFlag.FORGED)

    def helo(self, session: Session) -> MaybeVerdict:
        """Reserved, not a full name, ours: at HELO, unless the client shall have time to authenticate."""
        return None if session.settings[AUTH_DELAY_CHECKS] else self._judge(session)

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The same at MAIL."""
        if not session.settings[AUTH_DELAY_CHECKS] or session.auth:
            return None
        return self._judge(session)

    def _judge(self, session: Session) -> MaybeVerdict:
        if session.usual_suspect or session.grey:
            return None
        settings, argument = session.settings, session.helo
        if settings[RFC2606_SPECIAL_DOMAINS] and is_reserved_helo(argument):
            session.count(BOGUS_HELO)
            return drop(RESERVED, argument, delay=True, whole_session=True, fact=argument)
        if settings[RFC2821_STRICT_HELO] and not is_full_name(argument):
            session.count(STRICT_HELO_HIT)
            return drop(NOT_STRICT, argument, delay=True, whole_session=True, fact=argument)
        if not settings[HELO_CLAIMS_US] or ClientFlag.HELO_HOST in session.flags or ClientFlag.HELO_IP in session.flags:
            return None
        return self._claims_us(session)

    async def _claims_us(self, session: Session) -> Verdict | None:
        argument = session.helo
        if not await self._routes.is_ours(argument) or (session.name and await self._routes.is_ours(session.name)):
            return None
        session.count(HELO_CLAIMS_US_HIT)
        return drop(CLAIMS_US, session.name, session.address, argument, delay=True, whole_session=True, fact=argument)

    def is_ptr(self, session: Session) -> Verdict | None:
        """The argument is the generated reverse name: at HELO, unless the sender may still vouch for the client."""
        return None if session.settings[CLIENT_IS_MX] else _is_ptr(session)

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        """The same at RCPT."""
        if not session.settings[CLIENT_IS_MX] or transaction.spf_mail is SpfResult.PASS:
            return None
        return _is_ptr(session)


def _is_ptr(session: Session) -> Verdict | None:
    flags = session.flags
    if not session.settings[HELO_IS_PTR] or ClientFlag.IP_IN_PTR not in flags or ClientFlag.MX in flags:
        return None
    if session.usual_suspect or session.grey or session.helo.lower().rstrip(".") != session.name:
        return None
    session.count(HELO_IS_PTR_HIT)
    return drop(IS_PTR, session.helo, delay=True, whole_session=True, fact=session.name)
