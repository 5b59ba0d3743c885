"""What the limits on clients count with: the key a client is counted under, a minute's window, and sessions in progress.

The tables live in the memory of this node and are bounded. A limit asks for them through ``Rates`` and ``Presence``, so that a worker
can ask those of the coordinator where several workers meet the same client. Source: spec chapter filters-envelope, 3.2 and 3.3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from smtpf.smtp.session import Session

Key = int | str
BUCKET_SECONDS = 6
BUCKETS = 10
"""A window is the current bucket and the nine before it: 54 to 60 seconds."""
MAX_KEYS = 65_536
"""Keys in one table; when it is full the one longest unused is forgotten."""


def client_key(ip: IPv4Address | IPv6Address) -> Key:
    """What a client is counted under: an IPv4 address, or the /64 network of an IPv6 address."""
    if isinstance(ip, IPv6Address):
        mapped = ip.ipv4_mapped
        return int(mapped) if mapped is not None else f"{int(ip) >> 64:x}/64"
    return int(ip)


async def counted(count: int | Awaitable[int]) -> int:
    """What a table answered, at once or later."""
    return count if isinstance(count, int) else await count


class Rates(Protocol):
    """Events of each key in the last minute."""

    def add(self, key: Key) -> int | Awaitable[int]:
        """Count one event; all of the last minute, this one included."""


class Presence(Protocol):
    """Of each key, how many are there now."""

    def enter(self, key: Key) -> int | Awaitable[int]:
        """One more; how many there are with it."""

    def leave(self, key: Key) -> None:
        """One less."""


class _Window:
    __slots__ = ("counts", "last")

    def __init__(self, bucket: int) -> None:
        self.last = bucket
        self.counts = [0] * BUCKETS


class MinuteWindows:
    """``Rates`` in memory: ten buckets of six seconds for each key, the least recently used key evicted first."""

    def __init__(self, now: Callable[[], float], most: int = MAX_KEYS) -> None:
        """``now`` gives Unix seconds."""
        self._now = now
        self._most = most
        self._windows: OrderedDict[Key, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, key: Key) -> int:
        bucket = int(self._now()) // BUCKET_SECONDS
        self._forget_idle(bucket)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(bucket)
            if len(self._windows) > self._most:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
            _advance(window, bucket)
        window.counts[window.last % BUCKETS] += 1
        return sum(window.counts)

    def _forget_idle(self, bucket: int) -> None:
        """Least recently used keys stand in front, so that only idle ones are looked at."""
        while self._windows:
            key = next(iter(self._windows))
            if bucket - self._windows[key].last < BUCKETS:
                return
            del self._windows[key]


def _advance(window: _Window, bucket: int) -> None:
    """Empty the buckets that time has passed over. A clock set back goes on counting in the last bucket."""
    for passed in range(window.last + 1, min(bucket, window.last + BUCKETS) + 1):
        window.counts[passed % BUCKETS] = 0
    window.last = max(window.last, bucket)


class SessionsPresent:
    """``Presence`` in memory. A key is held only while somebody is there, so sessions bound the table."""

    def __init__(self) -> None:
        self._present: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._present)

    def enter(self, key: Key) -> int:
        count = self._present[key] = self._present.get(key, 0) + 1
        return count

    def leave(self, key: Key) -> None:
        left = self._present.get(key, 0) - 1
        if left > 0:
            self._present[key] = left
        else:
            self._present.pop(key, None)


class Tallies(Protocol):
    """The tables of all limits."""

    def connections(self, session: Session) -> Rates:
        """Those of the session's client, for ``Rate-Connect:``."""

    def present(self, session: Session) -> Presence:
        """Those of the session's client, for ``Concurrent-Connect:``."""

    @property
    def bounces(self) -> Rates:
        """Those of ``Null-Rate-To:``."""


@attrs.frozen
class OwnTallies:
    """``Tallies`` of one process."""

    rates: MinuteWindows
    presence: SessionsPresent
    bounces: MinuteWindows

    @classmethod
    def make(cls, now: Callable[[], float]) -> OwnTallies:
        """Empty ones; ``now`` gives Unix seconds."""
        return cls(MinuteWindows(now), SessionsPresent(), MinuteWindows(now))

    def connections(self, session: Session) -> Rates:
        return self.rates

    def present(self, session: Session) -> Presence:
        return self.presence
