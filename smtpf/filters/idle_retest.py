"""The gate in front of the tests that are repeated while a client stays connected.

A client may be listed after it has connected, so ``Connect:`` and ``dns-bl`` are asked again: after ``idle-retest-timer`` seconds, or
with ``mail-retest-client`` for every message behind the first one delivered. Source: spec chapters session, 4.3 (idle);
filters-envelope, 18.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from smtpf.pipeline import SKIP_REMAINDER, Filter, Verdict
from smtpf.settings.option import Number
from smtpf.smtp.options import MAIL_RETEST_CLIENT
from smtpf.smtp.session import Session
from smtpf.stats.counter import Counter, Group

IDLE_RETEST_TIMER = Number(
    "idle-retest-timer",
    300,
    "How long a client stays connected before it is looked up again in the access map and dns-bl.",
    choices="seconds; 0 = never",
    area="client",
)
IDLE_RETEST_FOUND = Counter("idle-retest-timer", Group.CONNECT, "Tests repeated during a session that came to a verdict.")


class Clock(Protocol):
    """What is needed of the reactor."""

    def seconds(self) -> float: ...


@attrs.define
class _LastTest:
    at: float | None = None
    """Reactor seconds; None when not tested again yet."""


class IdleRetest(Filter):
    """Lets the idle stage go on only when it is time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def idle(self, session: Session) -> Verdict | None:
        """Go on, or end the stage."""
        settings = session.settings
        if settings[MAIL_RETEST_CLIENT] and session.forwarded_count > 0:
            return None
        timer = settings[IDLE_RETEST_TIMER]
        if timer <= 0 or session.usual_suspect or session.grey:
            return SKIP_REMAINDER
        now = self._clock.seconds()
        if now - session.started < timer:
            return SKIP_REMAINDER
        tested = session.own(_LastTest)
        if tested.at is not None and now - tested.at < timer:
            return SKIP_REMAINDER
        tested.at = now
        return None
