"""Which keys the cache file may hold: a bitmap in memory that answers most look-ups of what is not there without the disk.

Most keys that a mail filter asks about are new: a message seen for the first time, a client that never came before. A Bloom
filter of two bits for each key knows those. It never denies a key that is there; for about one absent key in a hundred
it cannot tell, and the file is read. ``filling`` keeps it true to the file. Workers share it with the coordinator, who alone writes.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from hashlib import blake2b

from smtpf.cache.records import encoded
from smtpf.shared_memory import shared_file

AREA = 1 << 27
"""Octets of the largest bitmap: 2**30 bits, for some hundred million keys. Untouched pages take no memory."""
PAGE = mmap.ALLOCATIONGRANULARITY
SIZE = PAGE + 2 * AREA
"""Octets of the whole: a page that says where the bitmap lies, and room for the one in use and the one being filled."""

_STATE = struct.Struct("@Q")
"""Where the bitmap in use begins, with the number of bits of its mask in the low bits: one word, which no reader sees half written."""


def fingerprint(key: bytes) -> int:
    """64 bits of ``key``, the same in every process."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


class Presence:
    """The bitmap. ``descriptor`` is a file to share it by, of at least SIZE octets."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, SIZE)
        self._written: set[int] = set()

    @classmethod
    def make(cls) -> Presence:
        """An empty one. Every key may be there. Raises OSError."""
        return cls(shared_file("smtpf-keys", SIZE))

    def may_hold(self, key: str) -> bool:
        """False: ``key``, which must be storable, is certainly not in the file, nor about to be."""
        memory = self._memory
        (state,) = _STATE.unpack_from(memory)
        if not state:
            return True
        at, mask = state & -PAGE, (1 << state % PAGE) - 1
        bits = fingerprint(encoded(key))
        place = bits & mask
        if not memory[at + (place >> 3)] >> (place & 7) & 1:
            return False
        place = bits >> 32 & mask
        return bool(memory[at + (place >> 3)] >> (place & 7) & 1)

    def set(self, at: int, mask: int, fingerprints: Iterable[int]) -> None:
        """Note keys in the bitmap at ``at``."""
        self._written.add(at)
        memory = self._memory
        for bits in fingerprints:
            place = bits & mask
            memory[at + (place >> 3)] |= 1 << (place & 7)
            place = bits >> 32 & mask
            memory[at + (place >> 3)] |= 1 << (place & 7)

    def use(self, at: int, mask: int) -> None:
        """Answer from the bitmap at ``at`` from now on."""
        _STATE.pack_into(self._memory, 0, at | mask.bit_length())

    def wipe(self, at: int) -> None:
        """Clear a bitmap that is not in use, and give its memory back."""
        if at not in self._written:
            return
        self._written.remove(at)
        if hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, at, AREA)
        else:
            for place in range(at, at + AREA, PAGE):
                self._memory[place : place + PAGE] = bytes(PAGE)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)
