"""The reactor of a node: Twisted's for epoll, with short turns.

Twisted serves every socket that is ready before it looks at clocks and threads again, so a turn grows with the number of busy
clients: ten thousand that hang up together hold all others for half a second. Here a turn ends after some milliseconds, and those
that had to wait come first in the next. ``reactor`` installs it.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from twisted.internet.epollreactor import EPollReactor

MOST_EVENTS = 32
"""Sockets asked for at once."""
TURN = 0.005
"""Seconds after which no further socket is served in a turn."""


class ShortTurns(EPollReactor):
    """Serves sockets for a short time, and sets no log context for each of them, which nothing here reads."""

    _poller: Any
    _selectables: dict[int, Any]

    def __init__(self) -> None:
        self._ready: dict[int, tuple[Any, int]] = {}
        """Descriptors with what they belong to and what has happened there, in the order in which they are served."""
        super().__init__()  # type: ignore[no-untyped-call]

    def doPoll(self, timeout: float | None) -> None:
        """Wait for at most ``timeout`` seconds, None without end, unless some had to wait in the last turn; then serve what is ready."""
        ready, selectables, serve = self._ready, self._selectables, self._doReadOrWrite
        for descriptor, event in self._poller.poll(0 if ready else -1 if timeout is None else timeout, MOST_EVENTS):
            ready[descriptor] = (selectables.get(descriptor), event)
        until = monotonic() + TURN
        while ready:
            descriptor = next(iter(ready))
            selectable, event = ready.pop(descriptor)
            # One that was served before may have closed this one, and another may have got its descriptor.
            if selectable is not None and selectables.get(descriptor) is selectable:
                serve(selectable, descriptor, event)  # type: ignore[no-untyped-call]
                if monotonic() > until:
                    return

    doIteration = doPoll
