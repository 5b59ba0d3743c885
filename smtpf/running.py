"""Runs the node without twistd around it: for the command ``smtpf`` with options as words, and for the demonstration.

The way through ``tap.start`` is the same as under twistd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import globalLogBeginner

from smtpf.process.reactor import install
from smtpf.tap import start


def run_node(words: Sequence[str]) -> int:
    """Do what ``words`` ask for. Returns when the node has ended; raises SystemExit for actions and wrong settings."""
    reactor = install()
    return run_services(reactor, start(words, reactor))


def run_services(reactor: Any, *services: MultiService) -> int:
    """Start ``services`` in this order, run ``reactor``, and stop them in the reverse order. The exit status."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    for service in services:
        service.privilegedStartService()
    for service in services:
        service.startService()
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0
