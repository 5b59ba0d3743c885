"""How long the reactor was busy between two looks at its sockets, and how often: the measure of what nobody else gets a turn in.

The node is not changed for it. ``python -m bench.meter FILE DESCRIPTORS twistd-words...`` is twistd, with a thin layer in front of the
epoll object of its reactor, and so is each worker that it starts. The figures lie in FILE, doubles that all processes map, a row for each.
DESCRIPTORS other than 0 is what the node's guard believes to have: it reckons with eight for each session, and an idle one has one.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import attrs

_FORM = struct.Struct("dddd")
SIZE = mmap.PAGESIZE
ROWS = SIZE // _FORM.size
_FILE = "SMTPF_BENCH_METER"
"""Environment variable by which workers know of FILE."""


@attrs.frozen
class Turns:
    """Turns of a reactor since the meter was last cleared."""

    count: int
    longest: float
    """Milliseconds by the clock: with other work on the machine, waiting for the processor is in it."""
    longest_cpu: float
    """Milliseconds of processor time."""
    busy: float
    """Milliseconds of all turns."""


class Meter:
    """The side of the one who reads."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(SIZE))
        self.file = file
        with file.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), SIZE)

    def clear(self) -> None:
        self._page[:] = bytes(SIZE)

    def read(self) -> Turns:
        """The longest of all processes, and the sums of the rest."""
        counts, longest, longest_cpu, busy = zip(*_FORM.iter_unpack(self._page[: ROWS * _FORM.size]), strict=True)
        return Turns(int(sum(counts)), max(longest) * 1000, max(longest_cpu) * 1000, sum(busy) * 1000)


class _Poller:
    """Stands in front of select.epoll."""

    def __init__(self, poller: Any, page: mmap.mmap) -> None:
        self._poller = poller
        self._page = page
        self._row = os.getpid() % ROWS * _FORM.size
        self._since = time.perf_counter()
        self._since_cpu = time.thread_time()
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister
        self.close = poller.close
        self.fileno = poller.fileno

    def poll(self, timeout: float, most: int) -> Any:
        page, row = self._page, self._row
        turn, turn_cpu = time.perf_counter() - self._since, time.thread_time() - self._since_cpu
        count, longest, longest_cpu, busy = _FORM.unpack_from(page, row)
        _FORM.pack_into(page, row, count + 1, max(longest, turn), max(longest_cpu, turn_cpu), busy + turn)
        try:
            return self._poller.poll(timeout, most)
        finally:
            self._since, self._since_cpu = time.perf_counter(), time.thread_time()


def _meter(loop: Any, file: str) -> None:
    with open(file, "r+b") as opened:
        page = mmap.mmap(opened.fileno(), SIZE)
    loop._poller = _Poller(loop._poller, page)


def main() -> None:
    """Be twistd, metered; or a worker, where such a one has said so in the environment."""
    from smtpf.process.reactor import install

    loop = install()
    if _FILE in os.environ:
        from smtpf.workers import worker

        _meter(loop, os.environ[_FILE])
        worker.main()
        return
    file, descriptors, *words = sys.argv[1:]
    os.environ[_FILE] = file
    sys.argv = ["twistd", *words]
    from twisted.scripts.twistd import run

    from smtpf.process import lifecycle
    from smtpf.workers import crew

    vars(crew)["PROGRAM"] = "bench.meter"
    if int(descriptors):
        parts = vars(lifecycle)
        raise_limits = parts["raise_limits"]

        def believed(settings: Any, journal: Any) -> int:
            return max(int(raise_limits(settings, journal)), int(descriptors))

        parts["raise_limits"] = believed
    _meter(loop, file)
    run()


if __name__ == "__main__":
    main()
