"""The reactor of a node: Twisted's for epoll, with short turns.

Twisted serves every socket that is ready before it looks at clocks and threads again, so a turn grows with the number of busy
clients: ten thousand that hang up together hold all others for half a second. Here a turn serves a few sockets, and the
kernel gives those that had to wait their place at the front of the next. Each process of a node installs it before anything
imports Twisted's.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

MOST_EVENTS = 32
"""Sockets served in one turn."""


class ShortTurns(EPollReactor):
    """Serves at most MOST_EVENTS sockets in a turn, and sets no log context for each of them, which nothing here reads."""

    _poller: Any
    _selectables: dict[int, Any]

    def doPoll(self, timeout: float | None) -> None:
        """Wait for at most ``timeout`` seconds, None without end, and serve what is ready."""
        ready = self._poller.poll(-1 if timeout is None else timeout, MOST_EVENTS)
        selectables, serve = self._selectables, self._doReadOrWrite
        for descriptor, event in ready:
            # One that was served before may have closed this one.
            selectable = selectables.get(descriptor)
            if selectable is not None:
                serve(selectable, descriptor, event)  # type: ignore[no-untyped-call]

    doIteration = doPoll


def install() -> Any:
    """The reactor of this process: the one that is there already (``twistd --reactor``), else ours."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(ShortTurns())  # type: ignore[no-untyped-call]
    from twisted.internet import reactor

    return reactor
