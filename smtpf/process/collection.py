"""The collector of Python's unused memory, set for a process that makes many small objects for a message and keeps almost none.

By default it looks through everything that lives after some hundred new objects, and now and then through the whole program
with all its tables: a tenth of the processor time of a message, and pauses that grow with the number of idle sessions.
"""

from __future__ import annotations

import gc

YOUNG = 20_000
"""New objects before the collector looks at them: some hundred messages' worth."""
MIDDLE = 20
OLD = 20
"""Looks at the younger generation for each look at the next."""


def settle_collector() -> None:
    """Call it once everything has been built: what lives now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
