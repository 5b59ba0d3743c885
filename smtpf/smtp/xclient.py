"""XCLIENT: a trusted front end tells whom it speaks for. Source: Postfix XCLIENT_README; spec chapter session, 13; security row Q.

What is claimed is used for every test and for the log, but a claimed loopback address never becomes ``localhost``, and
administration stays with the address of the transport.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from smtpf.journal.message import info
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Answer, Reply
from smtpf.smtp import options as opt
from smtpf.smtp import replies, summary
from smtpf.smtp.addresses import networks, plain_address
from smtpf.smtp.session import ClientFlag, State

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

SPOKEN_FOR = info(
    929, 'xclient %s [%s] f="%s" h="%s"', "A front end named the client it speaks for; the tests use that one.", always=True,
    fields=("client", "address", "flags", "helo"), since="later",
)  # fmt: skip
INVALID = Reply(928, "501 5.5.4 invalid argument %s", meaning="XCLIENT named an attribute that is unknown or malformed.")

_UNAVAILABLE = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_IGNORED = frozenset({"PORT", "DESTADDR", "DESTPORT", "LOGIN"})
_XTEXT = re.compile(r"\+([0-9A-Fa-f]{2})")
_HELO = re.compile(r"[!-~]{1,512}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}")


def allowed(talk: Conversation) -> bool:
    """Whether this transport peer may use XCLIENT: localhost, or one that smtp-xclient-from names."""
    settings = talk.session.settings
    if not settings[opt.SMTP_XCLIENT_ENABLE]:
        return False
    peer = ipaddress.ip_address(talk.transport_address)
    return (peer.is_loopback and talk.wire.claim is None) or any(
        peer in network for network in networks(settings[opt.SMTP_XCLIENT_FROM]) if network.version == peer.version
    )


async def xclient(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """XCLIENT: take over the named attributes and begin anew."""
    if not allowed(talk):
        return Verdict(Code.CONTINUE, replies.OUT_OF_SEQUENCE, ("XCLIENT",))
    if not argument:
        return Verdict(Code.CONTINUE, replies.MISSING_ARGUMENT, (line,))
    attributes: dict[str, str] = {}
    for word in argument.split():
        name, equals, value = word.partition("=")
        name = name.upper()
        decoded = _XTEXT.sub(lambda found: chr(int(found[1], 16)), value)
        if not equals or not _valid(name, decoded):
            return Verdict(Code.CONTINUE, INVALID, (word,))
        attributes[name] = decoded
    await _take_over(talk, attributes)
    session = talk.session
    session.log(SPOKEN_FOR, session.name, session.address, summary.client_flags(session), session.helo)
    if not await talk.greet():
        talk.ending = True
    elif session.state is not State.SINK:
        session.state = {"SMTP": State.HELO, "ESMTP": State.EHLO}.get(attributes.get("PROTO", "").upper(), State.CONN)
        session.esmtp = session.state is State.EHLO
    return None


async def _take_over(talk: Conversation, attributes: dict[str, str]) -> None:
    """Forget what is known of the client and settle the claimed one."""
    session = talk.session
    await talk.end_transaction()
    talk.forget_authentication()
    session.state = State.CONN
    session.esmtp = session.said_ehlo = False
    session.forget_client()
    session.flags.add(ClientFlag.NO_PTR)
    session.really_local = False
    session.slots.delayed = None
    session.slots.immediate = None
    address = attributes.get("ADDR", "")
    if address and address.upper() not in _UNAVAILABLE:
        session.address = plain_address(address.removeprefix("IPV6:").removeprefix("IPv6:"))
        session.ip = ipaddress.ip_address(session.address)
    if session.ip.version == 6:
        session.flags.add(ClientFlag.IPV6)
    session.helo = attributes.get("HELO", "")
    name = attributes.get("NAME", "")
    session.name = "" if name.upper() in _UNAVAILABLE else name.lower().rstrip(".")
    # The front end knows the client's name if anybody does: one that only the DNS gives makes nobody a relay.
    await talk.classify(claimed=True, relay_by_name=session.name != "")
    if name.upper() in _UNAVAILABLE:
        session.name = ""
        session.flags.add(ClientFlag.NO_PTR)
        if name.upper() == "[TEMPUNAVAIL]":
            session.flags.add(ClientFlag.NO_PTR_ERROR)
    elif name:
        session.flags.discard(ClientFlag.NO_PTR)


def _valid(name: str, value: str) -> bool:
    if name == "ADDR":
        try:
            ipaddress.ip_address(value.removeprefix("IPV6:").removeprefix("IPv6:"))
        except ValueError:
            return value.upper() in _UNAVAILABLE
        return True
    if name == "NAME":
        return value.upper() in _UNAVAILABLE or _HOST.fullmatch(value) is not None
    if name == "HELO":
        return _HELO.fullmatch(value) is not None
    if name == "PROTO":
        return value.upper() in ("SMTP", "ESMTP")
    return name in _IGNORED
