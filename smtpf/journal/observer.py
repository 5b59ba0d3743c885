"""Failures that Twisted itself logs, such as an exception in a Deferred nobody listened to, brought into the mail log as #539.

Everything else Twisted says (factories starting, ports listening) is left out: this program's own messages tell it.
"""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from smtpf.journal.journal import INTERNAL_ERROR, Journal


@implementer(ILogObserver)
class FailureObserver:
    """An observer for ``twisted.logger.globalLogPublisher``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._busy = False

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if self._busy or level is None or level < LogLevel.error:
            return
        # A target that fails inside this observer would be logged by Twisted again, without end.
        self._busy = True
        try:
            source = str(event.get("log_namespace", "twisted"))
            failure = event.get("log_failure")
            if failure is not None:
                self._journal.failure(failure, doing=source)
            else:
                self._journal.write(INTERNAL_ERROR, source, 0, level.name, formatEvent(event), 0)
        finally:
            self._busy = False
