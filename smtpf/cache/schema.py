"""The tables of the cache file, and how files of older releases become them.

Opening a file makes what is missing and leaves the rest alone, so an empty file, a file of release 2.1 or 2.6, or one
that also holds other tables may be given. Source: spec chapter operations, 1.3.
"""

from __future__ import annotations

import sqlite3

_RECORDS = (
    "CREATE TABLE {name}( k VARCHAR(383) PRIMARY KEY, d VARCHAR(92), h INTEGER DEFAULT 1, c INTEGER, t INTEGER, e INTEGER,"
    " n INTEGER, o TEXT, x INTEGER DEFAULT 0 )"
)
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS mcc_expire ON mcc(e)",
    "CREATE INDEX IF NOT EXISTS mcc_change ON mcc(n)",
)
_BESIDE = (
    "CREATE TABLE IF NOT EXISTS mcc_meta( name TEXT PRIMARY KEY, value TEXT )",
    "CREATE TABLE IF NOT EXISTS mcc_peer( node TEXT PRIMARY KEY, name TEXT, epoch INTEGER, n INTEGER, seen INTEGER )",
)
_ADDED = (("n", "INTEGER"), ("o", "TEXT"), ("x", "INTEGER DEFAULT 0"))


class ForeignTable(Exception):
    """There is a table ``mcc`` which is no cache of any release."""


def prepare(connection: sqlite3.Connection) -> None:
    """Make or upgrade all tables in one transaction. Costs nothing per record unless the file is of an older release."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        columns = {str(row[0], "ascii", "replace") for row in connection.execute("SELECT name FROM pragma_table_info('mcc')")}
        if not columns:
            connection.execute(_RECORDS.format(name="mcc"))
        elif "d" in columns:
            _from_2_1(connection, columns)
        elif "v" in columns:
            _from_2_6(connection)
        else:
            raise ForeignTable("table mcc has neither column d nor column v")
        for statement in _INDEXES + _BESIDE:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _from_2_1(connection: sqlite3.Connection, columns: set[str]) -> None:
    missing = [f"ALTER TABLE mcc ADD COLUMN {name} {kind}" for name, kind in _ADDED if name not in columns]
    for statement in missing:
        connection.execute(statement)
    if missing:
        # Without a change number a row would never reach another node.
        connection.execute("UPDATE mcc SET n = rowid WHERE n IS NULL")


def _from_2_6(connection: sqlite3.Connection) -> None:
    connection.execute(_RECORDS.format(name="mcc_new"))
    connection.execute("INSERT INTO mcc_new (k, d, h, c, t, e, n) SELECT k, v, 1, c, c, e, rowid FROM mcc")
    connection.execute("DROP TABLE mcc")
    connection.execute("ALTER TABLE mcc_new RENAME TO mcc")
