"""How much memory SQLite uses: its own two counters, which Python's binding does not show."""

from __future__ import annotations

import _sqlite3
import ctypes


def memory_used() -> tuple[int, int]:
    """Octets SQLite has allocated, and the most it ever had; zeros where its library cannot be reached."""
    # The extension module is linked with the library: what the module sees can be found through it.
    try:
        library = ctypes.CDLL(_sqlite3.__file__)
        used, most = library.sqlite3_memory_used, library.sqlite3_memory_highwater
    except (AttributeError, OSError):
        return 0, 0
    used.restype = most.restype = ctypes.c_int64
    most.argtypes = [ctypes.c_int]
    return int(used()), int(most(0))
