"""The table behind CACHE ACTIVE: which nodes have been heard, how often, and what they say of themselves.

Only members of the cluster get a row. Source: spec chapter operations, 2.8 and 4.5.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

HOSTS = 512
"""Rows; the one heard longest ago goes first."""
TICK = 6
TICKS = 10
OURSELVES = "127.0.0.1"
"""Row in which what this node sends is counted."""


@attrs.frozen
class Row:
    """One host as it is shown."""

    ip: str
    age: int
    """Seconds since it was last heard."""
    ppm: int
    """Boxes in the last minute."""
    max_ppm: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((f"ip={self.ip} age={self.age} ppm={self.ppm} max-ppm={self.max_ppm}", *self.notes))


class _Host:
    __slots__ = ("counts", "last", "most", "notes", "tick")

    def __init__(self, tick: int) -> None:
        self.counts = [0] * TICKS
        self.tick = tick
        self.last = 0.0
        self.most = 0
        self.notes: dict[str, str] = {}

    def advance(self, tick: int) -> None:
        for passed in range(self.tick + 1, min(tick, self.tick + TICKS) + 1):
            self.counts[passed % TICKS] = 0
        self.tick = max(self.tick, tick)


class Activity:
    """Counts and notes by address."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def count(self, ip: str, now: float, amount: int = 1) -> None:
        """``amount`` boxes were heard from ``ip`` (or sent, for ``OURSELVES``) at ``now``, seconds."""
        tick = int(now) // TICK
        host = self._host(ip, tick)
        host.advance(tick)
        host.counts[tick % TICKS] += amount
        host.last = now
        host.most = max(host.most, sum(host.counts))

    def note(self, ip: str, now: float, **notes: str) -> None:
        """Set notes of ``ip``, shown as ``name=value``."""
        self._host(ip, int(now) // TICK).notes.update(notes)

    def rows(self, now: float) -> list[Row]:
        tick = int(now) // TICK
        rows = []
        for ip, host in self._hosts.items():
            host.advance(tick)
            notes = tuple(f"{name}={value}" for name, value in host.notes.items())
            rows.append(Row(ip, max(0, int(now - host.last)), sum(host.counts), host.most, notes))
        return rows

    def _host(self, ip: str, tick: int) -> _Host:
        host = self._hosts.get(ip)
        if host is None:
            host = self._hosts[ip] = _Host(tick)
            host.last = tick * TICK
            if len(self._hosts) > HOSTS:
                self._hosts.popitem(last=False)
        self._hosts.move_to_end(ip)
        return host
