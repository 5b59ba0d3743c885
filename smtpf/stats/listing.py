"""The counters as people and programs read them: the lines of STAT, and the form that is posted to ``stats-http-post``.

Source: spec chapter operations, 3.7 and 3.8.
"""

from __future__ import annotations

from email.utils import formatdate
from urllib.parse import quote

import attrs

from smtpf.stats.sqlite_memory import memory_used
from smtpf.stats.tables import Statistics, Table

COLUMNS = {"R": Table.RUNTIME, "H": Table.HOURLY, "W": Table.WINDOW}
"""The argument of STAT, and the only column it then prints."""

_ALL = (Table.RUNTIME, Table.HOURLY, Table.WINDOW)


@attrs.frozen
class Facts:
    """What stands above the counters."""

    version: str
    started: float
    """Unix seconds."""
    now: float
    active: int
    """Sessions open now."""
    memory: tuple[int, int] = attrs.field(factory=memory_used)
    """Octets that SQLite uses, and the most it has used."""


def stat_lines(stats: Statistics, facts: Facts, column: Table | None = None) -> list[str]:
    """The lines of a STAT reply without their ``214-2.0.0`` and without the last one; ``column`` limits them to one table."""
    lines = [
        f"smtpf/{facts.version}",
        f"start-time={start_time(facts.started)}",
        f"age={age(int(facts.now - facts.started))}",
        f"active-connections={facts.active}",
        f"sqlite-memory={memory(facts.memory[0])}",
        f"sqlite-high-memory={memory(facts.memory[1])}",
    ]
    shown = _ALL if column is None else (column,)
    for place, standing in enumerate(stats.standings()):
        values = "; ".join(f"{standing.values[table]} {standing.percents[table]:.2f}%" for table in shown)
        lines.append(f"{place:03d} {standing.counter.name}={values}")
    return lines


def form(stats: Statistics, facts: Facts) -> bytes:
    """Everything STAT tells, as ``application/x-www-form-urlencoded``."""
    fields = [
        f"smtpf={quote(facts.version)}",
        f"start-time=0x{int(facts.started):x}",
        f"age={int(facts.now - facts.started)}",
        f"active-connections={facts.active}",
        f"sqlite-memory={memory(facts.memory[0])}",
        f"sqlite-high-memory={memory(facts.memory[1])}",
    ]
    for standing in stats.standings():
        values = "%3B".join(f"{standing.values[table]}%20{standing.percents[table]:.2f}%25" for table in _ALL)
        fields.append(f"{quote(standing.counter.name)}={values}")
    return "&".join(fields).encode("ascii")


def start_time(second: float) -> str:
    """``Fri, 08 Feb 2008 05:28:04 +0000``, in local time."""
    return formatdate(second, localtime=True)


def age(seconds: int) -> str:
    """``3905 (00 01:05:05)``: seconds; days, hours, minutes and seconds."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{seconds} ({day:02d} {hour:02d}:{minute:02d}:{second:02d})"


def memory(octets: int) -> str:
    """``312KB``: divided by 1024 while that is more than 1024."""
    unit = 0
    while octets > 1024 and unit < 3:
        octets //= 1024
        unit += 1
    return f"{octets}{('B', 'KB', 'MB', 'GB')[unit]}"
