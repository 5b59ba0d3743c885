"""What a counter is: name, group and kind, declared once beside the code that counts.

A module declares its counters as module constants, and counts with ``session.count(GREY_TEMPFAIL)`` or
``stats.add(COUNTER)``. Source: spec chapter operations, section 3.
"""

from __future__ import annotations

from enum import Enum

import attrs


class Group(Enum):
    """The groups of a STAT listing, in its order. Percentages are of the first counter of the group."""

    GENERAL = "GENERAL"
    CONNECT = "CONNECT"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    MSG = "MSG"


class Kind(Enum):
    EVENT = "event"
    HIGH_WATER = "high-water"
    GAUGE = "gauge"


@attrs.frozen(eq=False)
class Counter:
    name: str
    group: Group
    meaning: str
    kind: Kind = Kind.EVENT
    since: str = attrs.field(default="seed", kw_only=True)
