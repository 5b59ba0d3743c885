"""How many processes a node has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from smtpf.journal.message import warn
from smtpf.process.steering import LOOPBACK, MOST_NETWORKS, Steering
from smtpf.settings.option import Number
from smtpf.settings.process_options import RUN_JAILED, TEST_MODE
from smtpf.smtp.addresses import networks
from smtpf.smtp.options import SMTP_XCLIENT_FROM
from smtpf.smtp.proxy_protocol import PROXY_PROTOCOL_FROM

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

WORKERS = Number(
    "workers",
    0,
    "Processes that answer clients, each those of certain addresses, so that the limits on a client stay exact; one more keeps what they "
    "share. With 1 the node is a single process. 0: a single process until it is busy, from then on one for each processor core.",
    choices="processes; 0 = as many as cores, when there is work for them",
    runtime=False,
    least=0,
    most=64,
    since="new",
    area="process",
)


JAILED = warn(
    1144,
    "workers=%d not possible with run-jailed, using 1",
    "A jailed process cannot start further ones, because Python itself is not in the jail. The node goes on as a single process.",
    fields=("workers",),
    since="new",
)


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(settings: Settings, journal: Journal) -> int:
    """How many workers ``settings`` ask for; 1 for a node of one process."""
    count = settings[WORKERS] or usable_cores()
    if count > 1 and settings[TEST_MODE]:
        # One client at a time.
        return 1
    if count > 1 and settings[RUN_JAILED]:
        if settings[WORKERS]:
            journal.write(JAILED, count)
        return 1
    return count


def steering_of(settings: Settings, journal: Journal) -> Steering | None:
    """How clients come to the processes that ``settings`` ask for; None for a node of one.

    Who may speak for others, by XCLIENT or PROXY, meets any process.
    """
    count = worker_count(settings, journal)
    if count == 1:
        return None
    fronts = networks((*settings[PROXY_PROTOCOL_FROM], *settings[SMTP_XCLIENT_FROM]))
    return Steering(count, (*LOOPBACK, *fronts[: MOST_NETWORKS - len(LOOPBACK)]))
