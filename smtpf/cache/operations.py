"""What can be done with one record, as values: a cache file carries them out on its thread, a cache server is told of them.

Source: spec chapter operations, 1.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from smtpf.cache.records import Record

if TYPE_CHECKING:
    from smtpf.cache.database import Database


@attrs.frozen
class Read:
    """Gives the record, be it expired or removed, or None."""

    key: str
    writes = False

    def on(self, database: Database) -> Record | None:
        return database.read(self.key)


@attrs.frozen
class Put:
    """Gives the record as stored. Times are Unix seconds. ``forced``: by an operator."""

    key: str
    value: str
    now: int
    e: int
    forced: bool = False
    writes = True

    def on(self, database: Database) -> Record:
        return database.put(self.key, self.value, self.now, self.e, forced=self.forced)


@attrs.frozen
class Remove:
    """Gives the living record that was there, or None, and the tombstone. ``forced``: by an operator."""

    key: str
    now: int
    forced: bool = False
    writes = True

    def on(self, database: Database) -> tuple[Record | None, Record]:
        return database.remove(self.key, self.now, forced=self.forced)


@attrs.frozen
class Increment:
    """Gives the counter as stored. ``window`` is its life in seconds when it begins anew."""

    key: str
    amount: int
    now: int
    window: int
    writes = True

    def on(self, database: Database) -> Record:
        return database.increment(self.key, self.amount, self.now, self.window)


Operation = Read | Put | Remove | Increment
