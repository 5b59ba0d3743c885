"""The reactor of each process of a node. Asked for here before anything imports Twisted's."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.main import installReactor


def install() -> Any:
    """The reactor of this process: the one that is there already (``twistd --reactor``), else ours, where the system has epoll."""
    if "twisted.internet.reactor" not in sys.modules:
        try:
            from smtpf.process.short_turns import ShortTurns
        except ImportError:
            # Without epoll Twisted chooses.
            pass
        else:
            installReactor(ShortTurns())
    from twisted.internet import reactor

    return reactor
