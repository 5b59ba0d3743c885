"""Connections to next hops that are kept for the next message, so that not every message costs a connection and a greeting.

Only a connection on which everything was accepted comes here: nothing was refused on it, no message is on its way over it and
nobody has authenticated on it. It is given out only for the same host, the same name in EHLO and the same TLS policy, and only
while the host keeps silent. Sessions see none of this: a connection that has died meanwhile is replaced by ``forward.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, DeferredList

from smtpf.settings.option import Number
from smtpf.smtp.client import HopAnswer, NextHopProtocol
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.maps.hosts import Host
    from smtpf.settings.store import Settings

FORWARD_REUSE_LIMIT = Number(
    "forward-reuse-limit",
    10,
    "Idle connections to one next hop that are kept for further messages. A host that dislikes idle clients wants a small number here.",
    choices="connections per host; 0 = every message gets its own",
    least=0,
    most=1000,
    since="new",
    area="smtp",
)
FORWARD_REUSE_TOTAL = Number(
    "forward-reuse-total",
    100,
    "Idle connections to all next hops together that are kept; when there are more the one idle for longest is ended.",
    choices="connections; 0 = none",
    least=0,
    most=10_000,
    since="new",
    area="smtp",
)
FORWARD_REUSE_IDLE = Number(
    "forward-reuse-idle",
    5,
    "Seconds a connection to a next hop may be idle before it is ended with QUIT. Less than the host's own patience.",
    choices="seconds; 0 = keep none",
    least=0,
    most=240,
    since="new",
    area="smtp",
)
FORWARD_REUSE_MESSAGES = Number(
    "forward-reuse-messages",
    100,
    "Transactions after which a connection to a next hop is ended, so that a host behind a load balancer does not keep us for ever.",
    choices="transactions; 0 or 1 = every message gets its own connection",
    least=0,
    since="new",
    area="smtp",
)

REUSED = Counter(
    "forward-reused", Group.RCPT, "Next hops that were reached over a connection kept from an earlier transaction.", since="new"
)
REPLACED = Counter(
    "forward-reuse-replaced",
    Group.RCPT,
    "Kept connections that turned out to be dead or used up at MAIL, and were replaced by a new one without the client noticing.",
    since="new",
)

GOODBYE_SECONDS = 2.0
"""How long the end of a node waits for its next hops to answer QUIT."""

Place = tuple[str, int, str, str, str, bool]
"""What two users of one connection must have in common."""


@attrs.frozen
class Reached:
    """A host that said 220, and its answer to EHLO or HELO."""

    host: Host
    protocol: NextHopProtocol
    answer: HopAnswer
    place: Place | None = None
    """Under what it may be kept; None when it must not."""
    reused: bool = False
    """It has carried a transaction before."""


def place_of(host: Host, name: str, policy: str, with_tls: bool) -> Place:
    """``name`` is that of EHLO, ``policy`` the TLS policy of the host, ``with_tls`` says that TLS was to be tried."""
    return host.host.lower(), host.port, host.unix, name, policy, with_tls


class KeptConnections:
    """The idle connections of one process."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._idle: OrderedDict[NextHopProtocol, tuple[Place, Reached, float]] = OrderedDict()
        """Longest idle first, each with the reactor second at which it is ended."""
        self._places: dict[Place, list[NextHopProtocol]] = {}
        self._timer: Any = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, place: Place) -> Reached | None:
        """The connection of ``place`` that was used last, if one still seems to live."""
        waiting = self._places.get(place)
        while waiting:
            protocol = waiting[-1]
            _, reached, end = self._idle[protocol]
            self._forget(protocol)
            if protocol.broken is not None:
                continue
            if end > self._reactor.seconds() and protocol.is_silent():
                return reached
            protocol.quit()
        return None

    def keep(self, reached: Reached, settings: Settings) -> bool:
        """Keep a connection; False, and it is the caller's to end, when it has served its time or none are kept."""
        protocol, place = reached.protocol, reached.place
        per_host, total, idle = settings[FORWARD_REUSE_LIMIT], settings[FORWARD_REUSE_TOTAL], settings[FORWARD_REUSE_IDLE]
        if place is None or self._closed or not (per_host and total and idle) or not protocol.at_rest:
            return False
        if protocol.transactions >= settings[FORWARD_REUSE_MESSAGES]:
            return False
        if len(self._places.get(place, ())) >= per_host:
            return False
        protocol.stay_idle()
        self._places.setdefault(place, []).append(protocol)
        if not reached.reused:
            reached = attrs.evolve(reached, reused=True)
            protocol.lost.addCallback(lambda nothing: self._forget(protocol))
        self._idle[protocol] = (place, reached, self._reactor.seconds() + idle)
        while len(self._idle) > total:
            self._end(next(iter(self._idle)))
        if self._timer is None:
            self._timer = self._reactor.callLater(idle, self._sweep)
        return True

    def close(self) -> Deferred[None] | None:
        """End all with QUIT, and keep none from now on. Done when the hosts have answered, or after two seconds."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended = [protocol.lost for protocol in self._idle if protocol.broken is None]
        for protocol in list(self._idle):
            self._end(protocol)
        if not ended:
            return None
        waiting: Deferred[None] = Deferred()

        def all_ended(results: object) -> None:
            if not waiting.called:
                waiting.callback(None)

        DeferredList([_shared(each) for each in ended]).addCallback(all_ended)
        return waiting.addTimeout(GOODBYE_SECONDS, self._reactor, onTimeoutCancel=lambda result, timeout: None)

    def _sweep(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        for protocol, (_, _, end) in list(self._idle.items()):
            if end > now:
                self._timer = self._reactor.callLater(end - now, self._sweep)
                return
            self._end(protocol)

    def _end(self, protocol: NextHopProtocol) -> None:
        self._forget(protocol)
        protocol.quit()

    def _forget(self, protocol: NextHopProtocol) -> None:
        entry = self._idle.pop(protocol, None)
        if entry is None:
            return
        here = self._places[entry[0]]
        here.remove(protocol)
        if not here:
            del self._places[entry[0]]


def _shared(lost: Deferred[None]) -> Deferred[None]:
    """A Deferred of its own for one that others wait for too."""
    waiting: Deferred[None] = Deferred()

    def ended(nothing: None) -> None:
        waiting.callback(None)

    lost.addCallback(ended)
    return waiting
