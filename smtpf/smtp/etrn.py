"""ETRN: pass a request to run the mail queue on to the host that has one, the first of the local route that answers.

Source: RFC 1985, spec chapters session, 3.3, and maps, 23.
"""

from __future__ import annotations

from smtpf.maps.routes import Route, RouteMap
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Reply
from smtpf.smtp import options
from smtpf.smtp.client import HopFailure
from smtpf.smtp.forward import Forwarder
from smtpf.smtp.session import Session

UNABLE = Reply(276, "458 4.4.0 unable to queue messages for %s", meaning="No host of the local route answers, or there is no local route.")
QUEUE_REPLY = Reply(277, "%s", meaning="The local route's answer to ETRN.")


class QueueRequest:
    """Relays ETRN."""

    def __init__(self, routes: RouteMap, forwarder: Forwarder) -> None:
        self._routes = routes
        self._forwarder = forwarder

    async def ask(self, session: Session, argument: str) -> Verdict:
        """The client's answer: the queue host's own last line, or 458."""
        unable = Verdict(Code.TEMPFAIL, UNABLE, (argument,))
        route = await self._routes.local_route()
        if not isinstance(route, Route) or not route.forward:
            return unable
        reached = await self._forwarder.reach(session.settings, session.interface_name, route.forward)
        if isinstance(reached, HopFailure):
            return unable
        answer = reached.answer
        if answer.positive:
            answer = await reached.protocol.command(b"ETRN " + argument.encode(), session.settings[options.SMTP_COMMAND_TIMEOUT])
        self._forwarder.release(reached.protocol)
        if isinstance(answer, HopFailure) or 300 <= answer.code < 400:
            return unable
        code = Code.CONTINUE if answer.positive else Code.REJECT if answer.permanent else Code.TEMPFAIL
        return Verdict(code, QUEUE_REPLY, (answer.last,))
