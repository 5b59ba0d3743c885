"""The one door to the DNS: every name of the outside world is looked up through ``Resolver``.

A query answered from the cache is answered at once, without a Deferred. The cache is bounded and keeps negative
answers too (RFC 2308); the same question asked twice at a time is sent once; CNAMEs are followed, within a bound;
each query ends within ``dns-max-timeout``. An outcome is always an ``Answer``: failures are values.
"""

from __future__ import annotations

import ipaddress
import random
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpf import waiting
from smtpf.dns import wire
from smtpf.dns.answer import Answer, HostAddresses, Status, timed_out
from smtpf.dns.client import Client
from smtpf.dns.hosts import HostsFile
from smtpf.dns.servers import DNS_MAX_TIMEOUT, DNS_ROUND_ROBIN, DNS_SERVERS, Server, servers

if TYPE_CHECKING:
    from smtpf.settings.store import Settings

MAX_CACHED = 20_000
"""Answers kept; the least recently used one goes first."""
FAILURE_TTL = 5
"""Seconds for which a failure is kept, lest a broken zone be asked at each command (RFC 9520)."""
UNBOUNDED_TTL = 1
"""Seconds for which a negative answer without SOA is kept: it says nothing of its lifetime, and is not for a cache (RFC 2308 5)."""
MAX_UNDER_WAY = 10_000
"""Different questions under way; one more is answered as timed out at once."""


class Resolver:
    """DNS look-ups with cache, sharing and deadline.

    ``reactor`` gives time, UDP and TCP; ``servers`` are address and port; ``timeout`` is in seconds.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[Server],
        *,
        timeout: float = 45.0,
        round_robin: bool = False,
        hosts: HostsFile | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._reactor = reactor
        self._client = Client(reactor, servers, chance or random.SystemRandom())
        self._client.round_robin = round_robin
        self._hosts = hosts or HostsFile()
        self.timeout = timeout
        """Longest wait for one answer, in seconds."""
        self._cache: OrderedDict[tuple[str, str], tuple[float, Answer]] = OrderedDict()
        self._under_way: dict[tuple[str, str], list[Deferred[Answer]]] = {}

    @classmethod
    def from_settings(cls, reactor: Any, settings: Settings) -> Resolver:
        """As the options say. Reads ``/etc/resolv.conf`` and ``/etc/hosts``: at start only."""
        configured = settings[DNS_SERVERS]
        resolver = cls(reactor, servers(configured))
        resolver.configure(settings)
        return resolver

    def configure(self, settings: Settings) -> None:
        """Take over the options that may change at run time."""
        self.timeout = settings[DNS_MAX_TIMEOUT]
        self._client.round_robin = settings[DNS_ROUND_ROBIN]

    def stop(self) -> None:
        """Close the sockets."""
        self._client.stop()

    def clear(self) -> None:
        """Forget all cached answers."""
        self._cache.clear()

    def seconds(self) -> float:
        """The resolver's clock, in seconds."""
        return float(self._reactor.seconds())

    def query(self, name: str, rtype: str, timeout: float | None = None) -> Answer | Deferred[Answer]:
        """Records of type ``rtype`` of ``name``: at once when known, else a Deferred that never fails.

        ``timeout`` seconds (default and most: ``dns-max-timeout``) bound this caller's wait. A name that cannot stand in
        the DNS does not exist. The Deferred may be cancelled.
        """
        name = wire.plain_name(name)
        key = (name, rtype)
        cached = self._cached(key)
        if cached is not None:
            return cached
        octets = wire.wire_name(name)
        if octets is None:
            return Answer(name, rtype, Status.NXDOMAIN)
        others = self._under_way.get(key)
        mine: Deferred[Answer] = Deferred()
        if others is not None:
            others.append(mine)
        elif len(self._under_way) >= MAX_UNDER_WAY:
            return timed_out(name, rtype)
        else:
            self._under_way[key] = [mine]
            self._begin(key, octets)
        if timeout is not None and timeout < self.timeout:
            mine.addTimeout(timeout, self._reactor, lambda result, seconds: timed_out(name, rtype))
        return mine

    async def lookup(self, name: str, rtype: str, timeout: float | None = None) -> Answer:
        """``query`` for code that awaits."""
        answer = self.query(name, rtype, timeout)
        return answer if isinstance(answer, Answer) else await answer

    async def lookup_all(self, questions: Sequence[tuple[str, str]], timeout: float | None = None) -> list[Answer]:
        """The answers to several questions asked at the same time, in the order of the questions."""
        asked = [self.query(name, rtype, timeout) for name, rtype in questions]
        return [answer if isinstance(answer, Answer) else await answer for answer in asked]

    async def addresses(self, name: str, timeout: float | None = None) -> HostAddresses:
        """A and AAAA records of ``name``, from the DNS alone."""
        four, six = await self.lookup_all(((name, "A"), (name, "AAAA")), timeout)
        error = four if four.failed else six if six.failed else None
        exists = Status.NXDOMAIN not in (four.status, six.status) or four.ok or six.ok
        return HostAddresses(four.name, four.addresses + six.addresses, exists, error is not None, error)

    async def host_addresses(self, name: str, timeout: float | None = None) -> HostAddresses:
        """Where a next hop lives: an address literal stands for itself, then the hosts file, then A and AAAA records."""
        try:
            return HostAddresses(name, (str(ipaddress.ip_address(name.strip("[]"))),))
        except ValueError:
            pass
        local = self._hosts.addresses(name)
        if local:
            return HostAddresses(wire.plain_name(name), local)
        return await self.addresses(name, timeout)

    def _cached(self, key: tuple[str, str]) -> Answer | None:
        entry = self._cache.get(key)
        if entry is None:
            return None
        expires, answer = entry
        if expires <= self._reactor.seconds():
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        return answer

    def _keep(self, key: tuple[str, str], answer: Answer) -> None:
        ttl = answer.ttl
        if not answer.ok and answer.authority is None:
            longest = FAILURE_TTL if answer.failed else UNBOUNDED_TTL
            ttl = min(longest, ttl or longest)
        if ttl > 0:
            self._cache[key] = (self._reactor.seconds() + ttl, answer)
            self._cache.move_to_end(key)
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)

    def _begin(self, key: tuple[str, str], octets: bytes) -> None:
        def settled(answer: Answer) -> None:
            self._keep(key, answer)
            for waiter in self._under_way.pop(key):
                if not waiter.called:
                    waiter.callback(answer)

        def broken(failure: Failure) -> None:
            for waiter in self._under_way.pop(key):
                if not waiter.called:
                    waiter.errback(failure)

        waiting.run(self._resolve(key, octets), settled, broken)

    async def _resolve(self, key: tuple[str, str], octets: bytes) -> Answer:
        """Ask, and ask for the end of the CNAME chain until it is known."""
        name, rtype = key
        deadline = self._reactor.seconds() + self.timeout
        answer: Answer | None = None
        while True:
            got = await self._client.ask(octets, wire.TYPES[rtype], max(0.0, deadline - self._reactor.seconds()))
            before = answer
            if isinstance(got, int):
                return attrs.evolve(timed_out(name, rtype, got), chain=before.chain if before else ())
            answer = wire.answer(name, rtype, got, before.chain if before else ())
            if before is not None:
                answer = attrs.evolve(answer, ttl=min(answer.ttl, before.ttl), chain=answer.chain or before.chain)
            if answer.status is not Status.NODATA or answer.authority is not None or not answer.chain:
                return answer
            if before is not None and len(before.chain) == len(answer.chain):
                return answer
            onward = wire.wire_name(answer.canonical)
            if onward is None:
                return answer
            octets = onward
