"""Spool files that nobody will remove any more, because the node that wrote them was killed."""

from __future__ import annotations

import os
import re

OLD = 86400.0
"""Seconds since the last change after which no message can still be on its way."""
MOST = 10_000
"""Files removed in one go."""
_SPOOL = re.compile(r"[0-9A-Za-z]{18}\.[0-9a-f]{16}\.tmp")


def sweep(directory: str, now: float) -> int:
    """Remove spool files of ours that are a day old; how many. Blocks, so it runs in a thread; what cannot be removed stays."""
    removed = 0
    try:
        entries = os.scandir(directory)
    except OSError:
        return 0
    with entries:
        for entry in entries:
            if removed >= MOST:
                break
            try:
                if _SPOOL.fullmatch(entry.name) and now - entry.stat(follow_symlinks=False).st_mtime > OLD:
                    os.unlink(entry.path)
                    removed += 1
            except OSError:
                continue
    return removed
