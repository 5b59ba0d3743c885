"""What the cluster does to the cache file: judge received records, serve pages of changes, remember peers.

All of it runs on the cache's thread inside one transaction each. Source: spec chapter operations, 2.10.5 to 2.10.7.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from smtpf.cache.conflict import SAME_WINDOW, Ruling, judge, same
from smtpf.cache.database import COLUMNS, Database, counted, record_of
from smtpf.cache.records import Record, encoded

PAGE_OCTETS = 48 * 1024
"""Octets to which a list of records may serialise: an AMP value holds 65,535."""
PAGE_RECORDS = 256
"""Records of a page."""
RECORD_OVERHEAD = 128
"""Octets, at most, that a record takes on the wire besides key and value."""

_PAGE = f"SELECT {COLUMNS} FROM mcc WHERE n > ? ORDER BY n LIMIT ?"


@attrs.frozen
class Received:
    """A record from another node."""

    record: Record
    forced: bool = False


@attrs.frozen
class Applied:
    """What became of it; ``better`` is the local row when that one is better."""

    ruling: Ruling
    stored: Record | None = None
    better: Record | None = None
    forced: bool = False
    """The better row is an operator's."""
    to_tell: bool = False
    """It took the place of a row of our own that others may hear of only now: they must hear of it again, behind that row."""


@attrs.frozen
class Page:
    records: tuple[Record, ...]
    epoch: int
    next: int
    """Change number from which to go on."""
    more: bool


@attrs.frozen
class Position:
    """How far this node has read a peer's changes."""

    epoch: int = 0
    n: int = 0


def size_of(record: Record) -> int:
    """Octets of ``record`` on the wire, at most."""
    return len(encoded(record.key)) + len(encoded(record.value)) + RECORD_OVERHEAD


def apply(database: Database, received: Sequence[Received], now: int) -> list[Applied]:
    """Judge each of ``received`` against its row, and store the better ones as they came."""
    return [_apply_one(database, item, now) for item in received]


def _apply_one(database: Database, item: Received, now: int) -> Applied:
    local = database.read(item.record.key)
    override = database.overrides.get(item.record.key)
    ruling = judge(local, item.record, now, forced=item.forced, override=override)
    if item.forced and ruling is not Ruling.CORRECTED:
        database.overrides.remember(item.record)
    if ruling is Ruling.ACCEPTED:
        ours = item.forced and local is not None and local.o == database.node
        crossed = ours and judge(local, item.record, now) is Ruling.CORRECTED
        return Applied(ruling, stored=database.write(item.record), to_tell=crossed)
    if ruling is Ruling.IGNORED or local is None:
        return Applied(ruling)
    return Applied(ruling, better=local, forced=override is not None and same(local, override))


def add(database: Database, key: str, delta: int, e: int, origin: str, now: int) -> tuple[int, Record | None]:
    """Add another node's ``delta`` to a counter whose window ends at ``e``. The value after it, and the row if it changed.

    When the windows differ, the counter of the later one survives.
    """
    local = database.read(key)
    alive = local is not None and local.alive(now)
    if local is not None and alive and abs(local.e - e) <= SAME_WINDOW:
        # This node's own share is in the sum, so it must be served to the other node too.
        row = Record(key, str(counted(local) + delta), local.h + 1, local.c, now, local.e, database.node)
    elif e <= now or (local is not None and alive and local.e >= e):
        return (counted(local) if local is not None and alive else 0), None
    else:
        row = Record(key, str(delta), 1, now, now, e, origin)
    stored = database.write(row)
    return counted(stored), stored


def page(database: Database, since: int, limit: int, caller: str, now: int) -> Page:
    """Rows and tombstones changed after ``since``, in order, without those that ``caller`` wrote itself."""
    rows = [record_of(row) for row in database.connection.execute(_PAGE, (since, limit))]
    wanted: list[Record] = []
    octets, reached = 0, since
    for record in rows:
        if record.o != caller and (record.x or record.e > now):
            octets += size_of(record)
            if octets > PAGE_OCTETS:
                return Page(tuple(wanted), database.epoch, reached, True)
            wanted.append(record)
        reached = record.n
    return Page(tuple(wanted), database.epoch, reached, len(rows) == limit)


def position(database: Database, node: str) -> Position:
    """How far the changes of peer ``node`` have been read; zeros for a stranger."""
    row = database.connection.execute("SELECT epoch, n FROM mcc_peer WHERE node = ?", (node,)).fetchone()
    return Position() if row is None else Position(row[0] or 0, row[1] or 0)


def remember(database: Database, node: str, name: str, reached: Position, now: int) -> None:
    """Keep how far ``node`` has been read, and that it was there at ``now``."""
    database.connection.execute(
        "INSERT OR REPLACE INTO mcc_peer (node, name, epoch, n, seen) VALUES (?, ?, ?, ?, ?)", (node, name, reached.epoch, reached.n, now)
    )


def seen(database: Database, nodes: Sequence[str], now: int) -> None:
    """Note that ``nodes`` are there at ``now``."""
    database.connection.executemany("UPDATE mcc_peer SET seen = ? WHERE node = ?", [(now, node) for node in nodes])


def last_contact(database: Database) -> int:
    """When any peer was last there, Unix seconds; 0 when none ever was."""
    return int(database.connection.execute("SELECT max(seen) FROM mcc_peer").fetchone()[0] or 0)


def forget_until(database: Database, moment: int) -> int:
    """Delete rows last put before ``moment`` and all positions: others have forgotten what was removed since then."""
    database.connection.execute("UPDATE mcc_peer SET epoch = 0, n = 0")
    return database.connection.execute("DELETE FROM mcc WHERE t < ?", (moment,)).rowcount
