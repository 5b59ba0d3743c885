"""The counters of the node as a whole: sessions, volume, load and open files.

Group GENERAL of a STAT listing also has those of the route map, the cluster and the grey list, which stand beside the code that counts.

Source: spec chapter operations, 3.4.
"""

from __future__ import annotations

from smtpf.stats.counter import Counter, Group, Kind

_GENERAL = Group.GENERAL

HIGH_LOAD_AVG_1 = Counter(
    "high-load-avg-1", _GENERAL, "Highest 1 minute load average seen, in thousandths.", Kind.HIGH_WATER, since="later"
)
HIGH_LOAD_AVG_5 = Counter(
    "high-load-avg-5", _GENERAL, "Highest 5 minute load average seen, in thousandths.", Kind.HIGH_WATER, since="later"
)
HIGH_LOAD_AVG_15 = Counter(
    "high-load-avg-15", _GENERAL, "Highest 15 minute load average seen, in thousandths.", Kind.HIGH_WATER, since="later"
)
LOAD_AVG_1 = Counter("load-avg-1", _GENERAL, "Load average over 1 minute, in thousandths, when last sampled.", Kind.GAUGE, since="later")
LOAD_AVG_5 = Counter("load-avg-5", _GENERAL, "Load average over 5 minutes, in thousandths, when last sampled.", Kind.GAUGE, since="later")
LOAD_AVG_15 = Counter(
    "load-avg-15", _GENERAL, "Load average over 15 minutes, in thousandths, when last sampled.", Kind.GAUGE, since="later"
)
HIGH_CONNECTIONS = Counter("high-connections", _GENERAL, "Most sessions open at the same time.", Kind.HIGH_WATER)
HIGH_CONNECTIONS_PER_SECOND = Counter(
    "high-connections-per-second", _GENERAL, "Most connections accepted within one second.", Kind.HIGH_WATER
)
HIGH_CONNECTIONS_PER_MINUTE = Counter(
    "high-connections-per-minute", _GENERAL, "Most connections accepted within one minute.", Kind.HIGH_WATER
)
HIGH_SESSION_TIME = Counter("high-session-time", _GENERAL, "Length of the longest session, in seconds.", Kind.HIGH_WATER)
CONNECTIONS_PER_MINUTE = Counter("connections-per-minute", _GENERAL, "Connections accepted in the last minute.", Kind.GAUGE)
TOTAL_KB = Counter("total-KB", _GENERAL, "Volume received in ended sessions: octets divided by 1024, plus one, of each.")
OPEN_FILES = Counter("open-files", _GENERAL, "Open file descriptors, sampled once a minute.", Kind.GAUGE, since="later")
HIGH_OPEN_FILES = Counter("high-open-files", _GENERAL, "Most open file descriptors seen.", Kind.HIGH_WATER, since="later")

ANNOUNCED = frozenset({HIGH_CONNECTIONS, HIGH_SESSION_TIME, HIGH_LOAD_AVG_1, HIGH_LOAD_AVG_5, HIGH_LOAD_AVG_15, HIGH_OPEN_FILES})
"""High-water counters whose new marks are logged with #715 and #716."""
