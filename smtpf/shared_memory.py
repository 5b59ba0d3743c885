"""Memory that the processes of a node share: a file without a name, which each of them maps."""

from __future__ import annotations

import os
import tempfile


def shared_file(name: str, size: int) -> int:
    """Descriptor of a file of ``size`` octets, all zero, in no folder; ``name`` is for those who look at the process. Raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
