"""How busy this node is, as the other nodes of its cluster are told. Source: spec chapter operations, 2.8."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from smtpf.cache.cluster import Load
from smtpf.smtp import counters
from smtpf.smtp.engine import Engine
from smtpf.stats.general import HIGH_OPEN_FILES, OPEN_FILES, TOTAL_KB

DESCRIPTORS_OF_A_SESSION = 8
DESCRIPTORS_OF_THE_NODE = 10


def load_of(engine: Engine, loads: Callable[[], tuple[float, float, float]] = os.getloadavg) -> Load:
    """Load averages in thousandths, seconds the machine is up, clients, messages and volume, descriptors and capacity in percent."""
    stats = engine.stats
    try:
        averages = loads()
    except OSError:
        averages = (0.0, 0.0, 0.0)
    messages, accepted = stats.value(counters.MESSAGES), stats.value(counters.MSG_ACCEPT)
    limit = max(1, engine.descriptor_limit)
    sessions = engine.sessions
    return Load(
        la=",".join(str(round(average * 1000)) for average in averages),
        ut=int(time.clock_gettime(time.CLOCK_BOOTTIME)) if hasattr(time, "CLOCK_BOOTTIME") else 0,
        tc=sessions,
        arv=f"{accepted}/{max(0, messages - accepted)}/{stats.value(TOTAL_KB)}",
        of=f"{stats.value(OPEN_FILES) * 100 // limit}/{stats.value(HIGH_OPEN_FILES) * 100 // limit}",
        cap=(sessions * DESCRIPTORS_OF_A_SESSION + DESCRIPTORS_OF_THE_NODE) * 100 // limit,
    )
