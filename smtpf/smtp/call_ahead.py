"""Call-ahead: ask the final mail store whether a recipient exists before accepting it.

A route with a ``RCPT:`` list has its recipients verified there. Only a definite answer of the host to RCPT is believed
and remembered; a host that is down, tempfails, or refuses the null sender never makes a recipient unknown.
Source: spec chapters session, 6.3, maps, 22, and filters-envelope, 14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from smtpf.cache.store import Cache
from smtpf.journal.message import info
from smtpf.settings.option import Flag, Number
from smtpf.smtp import probe
from smtpf.smtp.client import HopFailure, HopReply, NextHopProtocol
from smtpf.smtp.forward import Forwarder, without_detail

if TYPE_CHECKING:
    from smtpf.maps.hosts import Host
    from smtpf.maps.routes import Route
    from smtpf.smtp.grammar import Path
    from smtpf.smtp.session import Session

CALL_AHEAD_AS_SENDER = Flag(
    "call-ahead-as-sender",
    False,
    "Name the real sender in a call-ahead, for mail stores that do not take the null sender.",
    since="later",
    area="route",
)
CALL_AHEAD_COMMAND_TIMEOUT = Number(
    "call-ahead-command-timeout",
    45,
    "Seconds that a host has for each answer of a call-ahead. Keep it well below smtp-command-timeout, for the client waits.",
    choices="seconds",
    least=1,
    since="later",
    area="route",
)
CALLED = info(
    558,
    'call-ahead host=%s rcpt=<%s> rc=%d reply="%s"',
    "A host was asked about a recipient: rc 2 it exists, 5 it does not, 4 no answer that counts.",
    always=True,
    fields=("host", "recipient", "rc", "reply"),
)

GOOD, TEMPORARY, BAD = 2, 4, 5


class CallAhead:
    """Verifies recipients. One call for a recipient at a time: other sessions wait for its result."""

    def __init__(self, forwarder: Forwarder, cache: Cache) -> None:
        self._forwarder = forwarder
        self._cache = cache
        self._under_way: dict[str, list[Deferred[bool]]] = {}

    async def verify(self, session: Session, sender: Path, path: Path, route: Route) -> bool:
        """False: the recipient does not exist. True: it does, or nobody could tell."""
        if not path.qualified or not route.rcpt or _places(route.rcpt) == _places(route.forward):
            return True
        key = f"rcpt:{path.address.lower()}"
        record = self._cache.get(key, session.sid)
        if isinstance(record, Deferred):
            record = await record
        if record is not None and record.code in ("2", "5"):
            return record.code == "2"
        waiting = self._under_way.get(key)
        if waiting is not None:
            result: Deferred[bool] = Deferred()
            waiting.append(result)
            return await result
        self._under_way[key] = []
        known = True
        try:
            known = await self._call(session, sender, path, route, key)
        finally:
            for waiter in self._under_way.pop(key):
                waiter.callback(known)
        return known

    async def _call(self, session: Session, sender: Path, path: Path, route: Route, key: str) -> bool:
        for host in route.rcpt:
            rc, reply = await self._ask(session, host, sender, path)
            session.log(CALLED, host.text, path.address, rc, reply)
            if rc != TEMPORARY:
                self._cache.put(key, str(rc), session=session.sid)
                return rc == GOOD
        return True

    async def _ask(self, session: Session, host: Host, sender: Path, path: Path) -> tuple[int, str]:
        """What ``host`` says: 2, 4 or 5, and the text for the log."""
        dumb_key = f"dumb:{host.text},{path.domain}"
        dumb = self._cache.get(dumb_key, session.sid)
        if isinstance(dumb, Deferred):
            dumb = await dumb
        if dumb is not None:
            self._cache.touch(dumb, session=session.sid)
            if dumb.code == "2":
                return GOOD, "dumb mail host, skipping"
        timeout = session.settings[CALL_AHEAD_COMMAND_TIMEOUT]
        reached = await self._forwarder.reach(session.settings, session.interface_name, [host], command_timeout=timeout)
        if isinstance(reached, HopFailure):
            return TEMPORARY, "connection error"
        protocol = reached.protocol
        try:
            answer = reached.answer
            if answer.positive:
                reverse_path = sender.address if session.settings[CALL_AHEAD_AS_SENDER] else ""
                answer = await protocol.command(b"MAIL FROM:<" + reverse_path.encode() + b">", timeout)
            if not answer.positive:
                self._note(session, host, answer)
                return TEMPORARY, probe.text(answer)
            answer = await probe.ask(protocol, path.address, timeout)
            if path.detail and isinstance(answer, HopReply) and not answer.positive:
                answer = await probe.ask(protocol, without_detail(path), timeout)
            self._note(session, host, answer)
            rc = probe.verdict(answer)
            if rc != GOOD or dumb is not None:
                return rc, probe.text(answer)
            return await self._ask_for_nobody(session, host, protocol, path, dumb_key)
        finally:
            self._forwarder.release(protocol)

    async def _ask_for_nobody(self, session: Session, host: Host, protocol: NextHopProtocol, path: Path, dumb_key: str) -> tuple[int, str]:
        """Does the host take any address at all?"""
        answer = await probe.ask(protocol, probe.false_address(path), session.settings[CALL_AHEAD_COMMAND_TIMEOUT])
        self._note(session, host, answer)
        if answer.positive:
            self._cache.put(dumb_key, "2", session=session.sid)
            return GOOD, "dumb mail host found"
        if isinstance(answer, HopFailure) or answer.permanent:
            self._cache.put(dumb_key, "5", session=session.sid)
            return GOOD, ""
        return TEMPORARY, "dumb mail host inconclusive"

    @staticmethod
    def _note(session: Session, host: Host, answer: HopReply | HopFailure) -> None:
        if isinstance(answer, HopFailure):
            probe.log_failure(session, host.text, answer)


def _places(hosts: tuple[Host, ...]) -> list[tuple[str, int, str]]:
    return [(host.host.lower(), host.port, host.unix) for host in hosts]
