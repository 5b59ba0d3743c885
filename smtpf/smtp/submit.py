"""Hand a message of our own (a DSN, a report) to the mail system: over the local route, which can queue it.

Nobody waits for it but the caller, and no client ever does. Source: spec chapter session, 8.3 and 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from smtpf.maps.routes import Route, RouteMap
from smtpf.smtp import options
from smtpf.smtp.client import FailureKind, HopFailure, HopReply
from smtpf.smtp.forward import SMTP_DOT_TIMEOUT, Forwarder
from smtpf.smtp.kept import Reached

if TYPE_CHECKING:
    from smtpf.maps.hosts import Host
    from smtpf.settings.store import Settings


class Submitter:
    """Sends messages of our own. ``reactor``-free: all waiting is the forwarder's."""

    def __init__(self, routes: RouteMap, forwarder: Forwarder) -> None:
        self._routes = routes
        self._forwarder = forwarder

    async def submit(self, settings: Settings, name: str, sender: str, recipients: Sequence[str], message: bytes) -> str:
        """Send over the local route; empty, or why it did not take the message for every recipient.

        ``name`` is this host's, for EHLO. ``sender`` is without angle brackets, empty for the null sender. ``message``
        has CRLF line ends and is not dot-stuffed.
        """
        route = await self._routes.local_route()
        if not isinstance(route, Route) or not route.forward:
            return "no local route"
        return await self.submit_to(settings, name, self._forwarder.in_order(settings, route.forward), sender, recipients, message)

    async def submit_to(
        self,
        settings: Settings,
        name: str,
        hosts: Sequence[Host],
        sender: str,
        recipients: Sequence[str],
        message: bytes,
        permitted: Callable[[str], bool] | None = None,
    ) -> str:
        """The same over the first of ``hosts`` that answers."""
        reached = await self._forwarder.reach(settings, name, hosts, permitted=permitted)
        if isinstance(reached, HopFailure):
            return reached.text
        problem = await _send(settings, reached, sender, recipients, message)
        self._forwarder.release(reached.protocol)
        return "" if problem is None else problem.last if isinstance(problem, HopReply) else problem.text


async def _send(
    settings: Settings, reached: Reached, sender: str, recipients: Sequence[str], message: bytes
) -> HopReply | HopFailure | None:
    """The first answer that was no success; None when the message has been taken."""
    protocol, timeout = reached.protocol, settings[options.SMTP_COMMAND_TIMEOUT]
    if not reached.answer.positive:
        return reached.answer
    mail = b"MAIL FROM:<" + sender.encode() + b">"
    if not message.isascii():
        if "8BITMIME" not in protocol.extensions:
            return HopFailure(FailureKind.PROTOCOL, "next hop does not take 8-bit content")
        mail += b" BODY=8BITMIME"
    for line in (mail, *(b"RCPT TO:<" + recipient.encode() + b">" for recipient in recipients)):
        answer = await protocol.command(line, timeout)
        if not answer.positive:
            return answer
    answer = await protocol.data(timeout)
    if answer.code != 354:
        return answer
    answer = await protocol.send_content(message, bytes, timeout, settings[SMTP_DOT_TIMEOUT])
    return None if answer.positive else answer
