"""What operators set or removed by hand, remembered for a while: of two such records that meet, all nodes must keep the same one.

An operator's record wins over any other. When two operators change one key on two nodes at once, each node hears of the
other's change behind its own, and without a rule they would end with each other's record. Source: spec chapter operations, 2.10.5, line 2.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

from smtpf.cache.conflict import outranks
from smtpf.cache.records import Record

KEYS = 10_000
"""Keys remembered. Only changes that cross on the wire need it, so the last few seconds would do."""


class Overrides:
    """The last override of each key, ours or another node's. It need not outlive the process: a node that starts reads by the order."""

    def __init__(self, keys: int = KEYS) -> None:
        self._keys = keys
        self._last: OrderedDict[str, Record] = OrderedDict()

    def get(self, key: str) -> Record | None:
        return self._last.get(key)

    def remember(self, record: Record) -> None:
        self._last[record.key] = record
        self._last.move_to_end(record.key)
        if len(self._last) > self._keys:
            self._last.popitem(last=False)

    def stamped(self, record: Record) -> Record:
        """``record`` as a change made now, in the knowledge of those before: with a later time when theirs would outrank it."""
        known = self._last.get(record.key)
        if known is None or outranks(record, known):
            return record
        return attrs.evolve(record, t=known.t + 1)
