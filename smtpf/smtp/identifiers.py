"""Session and transaction identifiers: 18 characters, unique per node. Source: spec chapter session, 1.3."""

from __future__ import annotations

import time
from functools import lru_cache

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TRANSACTIONS = len(_DIGITS) ** 2
SESSIONS = 65535
"""The session counter runs from 1 to this and wraps."""


@lru_cache(maxsize=4)
def _clock_digits(second: int) -> str:
    local = time.localtime(second)
    parts = ((local.tm_year - 1900) % 62, local.tm_mon - 1, local.tm_mday - 1, local.tm_hour, local.tm_min, local.tm_sec % 62)
    return "".join(_DIGITS[part] for part in parts)


class SessionIds:
    """Makes session ids for one process. ``worker`` takes the place of the process id where several share a node."""

    def __init__(self, pid: int, counter: int = 0) -> None:
        self._pid = f"{pid % 100000:05d}"
        self._counter = counter

    def next(self, now: float) -> str:
        """The id of the session accepted at ``now`` (Unix seconds)."""
        self._counter = self._counter % SESSIONS + 1
        return f"{_clock_digits(int(now))}{self._pid}{self._counter:05d}00"


class TransactionIds:
    """Makes the transaction ids of one session: the same layout, the time of MAIL, and a counter in place of ``00``."""

    __slots__ = ("_counter", "_middle")

    def __init__(self, session_id: str, start: int) -> None:
        """``start`` is random, 0 to 3843; the counter is incremented before use and never gives ``00``."""
        self._middle = session_id[6:16]
        self._counter = start % _TRANSACTIONS

    def next(self, now: float) -> str:
        self._counter += 1
        if self._counter >= _TRANSACTIONS:
            self._counter = 1
        high, low = divmod(self._counter, 62)
        return f"{_clock_digits(int(now))}{self._middle}{_DIGITS[high]}{_DIGITS[low]}"
