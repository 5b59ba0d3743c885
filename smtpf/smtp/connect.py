"""Reach a next hop: from a host of the route-map to a connection that has said 220.

Every address of a host name is tried in turn, and an address literal or a UNIX socket costs no look-up at all. A host
that refuses, stays silent or greets with anything but 220 is a value, so that the caller can go on to the next host of
its list. Source: spec chapters session, 6.4, and maps, 21.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from smtpf.dns.answer import HostAddresses
from smtpf.maps.hosts import Host
from smtpf.smtp.client import FailureKind, HopAnswer, HopFailure, HopReply, NextHopProtocol

MAX_ADDRESSES = 16
"""Addresses of one host name that are tried."""


class Addresses(Protocol):
    """What is needed of the resolver (``smtpf/dns/resolver.py``)."""

    def host_addresses(self, name: str) -> HostAddresses | Awaitable[HostAddresses]: ...


class _Attempt(ClientFactory):
    """One attempt at one address; ``answer`` fires with the banner or the failure."""

    noisy = False
    made: NextHopProtocol

    def __init__(self, reactor: Any, greeting_timeout: float) -> None:
        self._reactor = reactor
        self._greeting_timeout = greeting_timeout
        self.answer: Deferred[HopAnswer] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> NextHopProtocol:
        self.made = NextHopProtocol(self._reactor, self._greeting_timeout)
        self.made.greeting = self.answer
        return self.made

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        number = getattr(reason.value, "osError", None)
        if not isinstance(number, int):
            number = errno.ETIMEDOUT if isinstance(reason.value, ConnectTimeout) else 0
        text = os.strerror(number) if number else reason.getErrorMessage()
        self.answer.callback(HopFailure(FailureKind.CONNECT, text, number))


async def connect(
    reactor: Any,
    resolver: Addresses,
    host: Host,
    timeout: float,
    greeting_timeout: float,
    permitted: Callable[[str], bool] | None = None,
) -> NextHopProtocol | HopFailure:
    """A connection to ``host`` that has greeted with 220, or why there is none.

    The addresses of a name share ``timeout`` seconds for connecting, each a fair part of what is left; each may take
    ``greeting_timeout`` seconds for its banner. ``permitted`` (for hosts that a stranger names) says which addresses
    may be contacted at all.
    """
    if host.unix:
        attempt = _Attempt(reactor, greeting_timeout)
        reactor.connectUNIX(host.unix, attempt, timeout=timeout)
        return await _greeted(attempt)
    if host.is_literal:
        addresses: tuple[str, ...] = (host.host,)
    else:
        found = resolver.host_addresses(host.host)
        if not isinstance(found, HostAddresses):
            found = await found
        addresses = found.addresses[:MAX_ADDRESSES]
        if not addresses:
            text = found.error.error_text if found.failed and found.error is not None else "host has no address"
            return HopFailure(FailureKind.CONNECT, text)
    end = reactor.seconds() + timeout
    failure = HopFailure(FailureKind.CONNECT, "address not permitted", errno.EPERM)
    for position, address in enumerate(addresses):
        if permitted is not None and not permitted(address):
            continue
        share = max(1.0, (end - reactor.seconds()) / (len(addresses) - position))
        attempt = _Attempt(reactor, greeting_timeout)
        reactor.connectTCP(address, host.port, attempt, timeout=min(share, timeout))
        made = await _greeted(attempt)
        if isinstance(made, NextHopProtocol):
            return made
        failure = made
    return failure


async def _greeted(attempt: _Attempt) -> NextHopProtocol | HopFailure:
    answer = await attempt.answer
    if isinstance(answer, HopReply):
        if answer.code == 220:
            attempt.made.banner = answer.lines[0][4:]
            return attempt.made
        attempt.made.quit()
        return HopFailure(FailureKind.PROTOCOL, answer.last, reply=answer)
    return answer
