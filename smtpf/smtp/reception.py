"""Where connections come in: they are counted, the throttle lets them wait, and each client gets its conversation.

Source: spec chapter session, 1.4; filters-envelope, 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import ServerFactory

from smtpf.journal.message import Message, err
from smtpf.smtp import counters
from smtpf.smtp import options as opt
from smtpf.smtp.arrivals import Arrival, Arrivals
from smtpf.smtp.conversation import Conversation
from smtpf.smtp.engine import Engine
from smtpf.smtp.proxy_protocol import PROXY_PROTOCOL_FROM, PROXY_PROTOCOL_INTERFACES, Balancers, ProxiedWire
from smtpf.smtp.wire import Wire

THROTTLED = err(
    519,
    "%lu connections exceeds %ld per second",
    "rate-throttle was reached: this connection and further ones wait a second. Raise it if the load is honest.",
    fields=("connections", "limit"),
)
THROTTLE_PAUSE = 1.0
"""Seconds."""


class Reception:
    """Counts what comes in on all interfaces of the node."""

    def __init__(
        self, engine: Engine, hold: Callable[[float], None], session_ended: Callable[[], None], arrivals: Arrivals | None = None
    ) -> None:
        """``hold(seconds)`` pauses accepting; ``session_ended()`` tells that there may be room again.

        ``arrivals`` are given where other processes accept, too.
        """
        self._engine = engine
        self._hold = hold
        self.released = session_ended
        self.arrivals = arrivals or Arrivals(engine.stats, engine.now)
        self.this_second = 0
        """Connections accepted in the clock second of the last one (``cs=``)."""
        self.counted: Arrival | None = None
        """The next connection has been counted already, by the process that accepted it."""

    def factory(self, interface_name: str) -> SmtpFactory:
        """The protocol factory of one interface."""
        return SmtpFactory(self._engine, self, interface_name)

    @property
    def accepted_now(self) -> int:
        """Connections accepted in this very second."""
        return self.arrivals.now

    async def admit(self, conversation: Conversation) -> None:
        """Count a connection, and let it wait when there are too many in this second."""
        limit = conversation.session.settings[opt.RATE_THROTTLE]
        counted, self.counted = self.counted, None
        arrival = counted or self.arrivals.arrived(limit)
        self.this_second = arrival.this_second
        if arrival.throttled:
            conversation.session.log(THROTTLED, arrival.this_second, limit)
            self._engine.stats.add(counters.RATE_THROTTLE)
            self._hold(THROTTLE_PAUSE)
            await conversation.wire.rest(THROTTLE_PAUSE)


class SmtpFactory(ServerFactory):
    """Makes the protocol of each connection of one interface."""

    noisy = False

    def __init__(self, engine: Engine, reception: Reception, interface_name: str) -> None:
        self._engine = engine
        self._reception = reception
        self._interface_name = interface_name
        settings = engine.settings.current
        self._balancers = Balancers.of(settings[PROXY_PROTOCOL_FROM], settings[PROXY_PROTOCOL_INTERFACES])

    def buildProtocol(self, addr: Any) -> Wire:
        engine = self._engine
        if self._balancers.peers:
            wire: Wire = ProxiedWire(engine.reactor, self._talker, self._balancers, self._refuse)
        else:
            wire = Wire(engine.reactor, self._talker)
        wire.factory = self
        return wire

    def _refuse(self, message: Message, address: str, reason: str) -> None:
        self._engine.journal.write(message, address, reason)
        self._reception.released()

    def _talker(self, wire: Wire) -> Conversation:
        return Conversation(self._engine, self._reception, self._interface_name, wire)
