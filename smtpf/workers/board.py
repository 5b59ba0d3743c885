"""What each process of a node counts for all others to see, in memory that they share: sessions, and connections of this second.

Each process writes a row of its own, and reads those of the others, so nothing need be said about a session that begins or ends.
Numbers are words of the machine, which nobody sees half written.
"""

from __future__ import annotations

import mmap

from smtpf.shared_memory import shared_file
from smtpf.smtp.arrivals import Arrivals

_SESSIONS, _TAKEN, _SECOND, _IN_SECOND, _ARRIVED = range(5)
_COLUMNS = 8
_WORD = 8


class Board:
    """``places`` rows. ``descriptor`` is a file to share it by; ``mine`` is the row of this process."""

    def __init__(self, descriptor: int, places: int, mine: int) -> None:
        self.descriptor = descriptor
        self._memory = memoryview(mmap.mmap(descriptor, places * _COLUMNS * _WORD)).cast("q")
        self._rows = range(0, places * _COLUMNS, _COLUMNS)
        self._mine = mine * _COLUMNS

    @classmethod
    def make(cls, places: int) -> Board:
        """An empty one, for the process of row 0. Raises OSError."""
        descriptor = shared_file("smtpf-board", places * _COLUMNS * _WORD)
        return cls(descriptor, places, 0)

    def began(self) -> None:
        """A session of this process has begun."""
        self._memory[self._mine + _SESSIONS] += 1

    def ended(self) -> None:
        """A session of this process has ended."""
        self._memory[self._mine + _SESSIONS] -= 1

    def put_sessions(self, count: int) -> None:
        """This process has so many sessions."""
        self._memory[self._mine + _SESSIONS] = count

    def took(self) -> None:
        """This process has taken up a connection that was handed to it."""
        self._memory[self._mine + _TAKEN] += 1

    def sessions(self, place: int) -> int:
        """Sessions of the process of row ``place``."""
        return self._memory[place * _COLUMNS + _SESSIONS]

    def taken(self, place: int) -> int:
        """Connections that the process of row ``place`` has taken up."""
        return self._memory[place * _COLUMNS + _TAKEN]

    def sessions_elsewhere(self) -> int:
        """Sessions of all other processes."""
        memory, mine = self._memory, self._mine
        return sum(memory[row + _SESSIONS] for row in self._rows if row != mine)

    def clear(self, place: int) -> None:
        """The process of row ``place`` is no more, and all that it had with it."""
        for column in range(_COLUMNS):
            self._memory[place * _COLUMNS + column] = 0

    # Connections as they arrive.

    def note(self, second: int, count: int) -> None:
        """This process has accepted ``count`` so far in the clock second ``second``."""
        memory, mine = self._memory, self._mine
        memory[mine + _IN_SECOND] = count
        memory[mine + _SECOND] = second
        memory[mine + _ARRIVED] += 1

    def others(self, second: int) -> int:
        """What the other processes have accepted in that second."""
        memory, mine = self._memory, self._mine
        return sum(memory[row + _IN_SECOND] for row in self._rows if row != mine and memory[row + _SECOND] == second)

    def arrived(self, place: int) -> int:
        """Connections that the process of row ``place`` has accepted since it started."""
        return self._memory[place * _COLUMNS + _ARRIVED]


class WorkerArrivals(Arrivals):
    """Counts for the board; the coordinator makes the rate of the minute of it."""

    def count(self, arrived: int) -> None:
        """The board has been told."""
