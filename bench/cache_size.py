"""How the cost of the cache grows with its size: ``python -m bench.cache_size [RECORDS ...]``.

For each size a cache file is made (its table as a node makes it, filled in bulk). Then a node is started on it, and the time to its ready
line is taken; after that the file is opened as a node does and asked for keys at random, those that are there and those that are not, with
the memory in front of the file switched off. Each look-up goes through the cache's thread and back, as in a node.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from bench.cases import scratch
from bench.node import PLAIN, Node
from bench.postfix_tools import Sink
from bench.report import tell

SIZES = (10_000, 1_000_000, 10_000_000)
LOOK_UPS = 3000
ROUNDS = 5
LIFE = 30 * 86_400
"""Seconds that the records have left."""


@attrs.frozen
class Found:
    """What was measured of one size. Times in seconds."""

    records: int
    octets: int
    start: float
    present: float
    absent: float
    """One look-up in the file of a key that is not there."""


def key(number: int) -> str:
    """Of the length of a grey-listing key."""
    return f"grey:192.0.2.{number % 256},sender{number}@elsewhere.example,recipient@bench.example"


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    now = int(time.time())
    for number in range(count):
        yield key(number).encode(), b"2 passed", 1, now, now, now + LIFE + number % 1000, b"0" * 32, 0, number + 1


def fill(path: Path, count: int) -> None:
    """Add ``count`` records to the cache file that a node has made."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = off")
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO mcc (k, d, h, c, t, e, o, x, n) VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, CAST(? AS TEXT), ?, ?)",
        _rows(count),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def measure(folder: Path, hop: int, count: int) -> Found:
    node = Node(folder / "node", hop, PLAIN)
    node.stop()
    path = folder / "node" / "cache.sq3"
    fill(path, count)
    starts = []
    for _ in range(3):
        (folder / "node" / "log").unlink()
        begun = time.perf_counter()
        node = Node(folder / "node", hop, PLAIN)
        starts.append(time.perf_counter() - begun)
        node.stop()
    present, absent = _look_ups(path, count)
    return Found(count, path.stat().st_size, median(starts), present, absent)


def _look_ups(path: Path, count: int) -> tuple[float, float]:
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred

    from smtpf.cache.opening import CACHE_PATH
    from smtpf.cache.store import cache_from
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

    loop: Any = reactor
    cache = cache_from(Settings.of({CACHE_PATH: str(path)}), Journal(lambda entry: None), loop, front_limit=1)
    cache.start()
    rng = random.Random(1)
    times: dict[bool, list[float]] = {True: [], False: []}

    async def ask() -> None:
        for _ in range(ROUNDS):
            for present, taken in times.items():
                keys = [key(rng.randrange(count) + (0 if present else count)) for _ in range(LOOK_UPS)]
                begun = time.perf_counter()
                for each in keys:
                    found = await cache.fetch(each)
                    if (found is not None) is not present:
                        raise RuntimeError(f"{each}: {found}")
                taken.append((time.perf_counter() - begun) / LOOK_UPS)

    failed: list[Any] = []
    ensureDeferred(ask()).addErrback(failed.append).addBoth(lambda nothing: loop.crash())
    loop.run()
    cache.stop()
    for failure in failed:
        failure.raiseException()
    return median(times[True]), median(times[False])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cache_size", description="Measure what the size of the cache costs.")
    parser.add_argument("records", nargs="*", type=int, default=list(SIZES))
    print("| records | file, MB | start, s | look-up, ms: present | absent |")
    print("|---:|---:|---:|---:|---:|")
    for count in parser.parse_args().records:
        with scratch() as folder:
            sink = Sink(folder)
            try:
                found = measure(folder, sink.port, count)
            finally:
                sink.stop()
        times = f"{found.start:.2f} | {found.present * 1000:.3f} | {found.absent * 1000:.3f}"
        print(f"| {found.records:,} | {found.octets / 1e6:.0f} | {times} |", flush=True)
    tell("a start includes that of the Python interpreter")
    return 0


if __name__ == "__main__":
    sys.exit(main())
