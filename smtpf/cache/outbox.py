"""Changes that wait to be sent to one peer, and the memory that keeps frequent touches off the wire.

Source: spec chapter operations, 2.10.6 and 2.10.8.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

from smtpf.cache.records import Record
from smtpf.cache.replica import PAGE_OCTETS, size_of

MOST_OCTETS = 4 * 1024 * 1024
"""Octets that may wait for one peer."""
PUT_RECORDS = 64
"""Records of one Put."""
DAMPING_SECONDS = 60
DAMPING_KEYS = 50_000
"""Keys whose last sending is remembered."""


@attrs.frozen
class Item:
    record: Record
    forced: bool = False
    added: int = 0
    """Not 0: tell the movement of a counter instead of the record."""


class Outbox:
    """Unsent changes by key: a newer version replaces an unsent older one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._octets = 0
        self.dropped = 0
        """Changes that were waiting whenever it was cleared."""

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: Item) -> bool:
        """False: there is no room any more; everything unsent has been dropped."""
        key = item.record.key
        waiting = self._items.get(key)
        if waiting is not None:
            self._octets -= size_of(waiting.record)
            item = _merged(waiting, item)
        self._items[key] = item
        self._octets += size_of(item.record)
        if len(self._items) > self._limit or self._octets > MOST_OCTETS:
            self.clear()
            return False
        return True

    def give_back(self, items: list[Item]) -> bool:
        """Take unanswered ``items`` again, ahead of the others. As ``offer``."""
        for item in reversed(items):
            if item.record.key in self._items and not item.added:
                continue
            if not self.offer(item):
                return False
            self._items.move_to_end(item.record.key, last=False)
        return True

    def take(self) -> list[Item]:
        """The next to be sent, oldest first: one counter's movement, or records for one Put."""
        taken: list[Item] = []
        octets = 0
        while self._items and len(taken) < PUT_RECORDS:
            key = next(iter(self._items))
            item = self._items[key]
            octets += size_of(item.record)
            if taken and (item.added or octets > PAGE_OCTETS):
                break
            del self._items[key]
            self._octets -= size_of(item.record)
            taken.append(item)
            if item.added:
                break
        return taken

    def clear(self) -> None:
        """Forget everything; a resync must make up for it."""
        self.dropped += len(self._items)
        self._items.clear()
        self._octets = 0


def _merged(waiting: Item, newer: Item) -> Item:
    if waiting.added and newer.added and waiting.record.e == newer.record.e:
        return Item(newer.record, False, waiting.added + newer.added)
    if newer.added:
        return Item(newer.record, waiting.forced)
    return Item(newer.record, newer.forced or waiting.forced)


class Damping:
    """Says whether a put is worth sending: a touch that moves the end a little is not, for a minute."""

    def __init__(self, keys: int = DAMPING_KEYS) -> None:
        self._keys = keys
        self._last: OrderedDict[str, tuple[float, str, int]] = OrderedDict()

    def worth_sending(self, record: Record, now: float) -> bool:
        """Remembers the record as sent when it says yes."""
        last = self._last.get(record.key)
        if last is not None and not record.x:
            sent, value, e = last
            life = record.e - record.t
            if now - sent < DAMPING_SECONDS and value == record.value and 0 <= record.e - e < life * 0.1:
                return False
        if record.x:
            self._last.pop(record.key, None)
            return True
        self._last[record.key] = (now, record.value, record.e)
        self._last.move_to_end(record.key)
        if len(self._last) > self._keys:
            self._last.popitem(last=False)
        return True
