"""The collector of Python's unused memory, set for a process that makes many small objects for a message and keeps almost none.

By default it looks through everything that lives after some hundred new objects, and now and then through the whole program
with all its tables: a tenth of the processor time of a message, and pauses that grow with the number of idle sessions.
"""

from __future__ import annotations

import gc

YOUNG = 5_000
"""New objects before the collector looks at them: dozens of messages' worth."""
MIDDLE = 1
"""Looks at the new ones for each look at those that survived: few, for thousands of new sessions survive, and the pause grows with them."""
OLD = 100
"""Looks at the survivors for each look at everything, which takes longer than anybody should wait: a session leaves nothing for it."""


def settle_collector() -> None:
    """Call it once everything has been built: what lives now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
