"""The sessions in progress, as the end of a node sees them. Source: spec chapter operations, 6.6."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from smtpf.smtp.engine import Engine

CLIENT_GRACE = 5.0
"""Seconds that clients in a reply wait are given."""
DOT_GRACE = 10.0
"""Seconds for messages whose final dot a next hop has."""
_LOOK = 0.1


class SessionsInProgress:
    """Counts, stops and cuts the sessions of one engine."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._engine: Engine | None = None

    def watch(self, engine: Engine) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return len(self._engine.conversations) if self._engine is not None else 0

    async def stop(self) -> None:
        """Say 421 to every client that waits for nothing, let messages on their way out finish, then cut."""
        engine = self._engine
        if engine is None:
            return
        for conversation in list(engine.conversations.values()):
            conversation.stop()
        waited = 0.0
        while engine.conversations and waited < CLIENT_GRACE + DOT_GRACE:
            if waited >= CLIENT_GRACE:
                for conversation in list(engine.conversations.values()):
                    if not conversation.relaying:
                        conversation.wire.abort()
            await deferLater(self._reactor, _LOOK)
            waited += _LOOK

    def abort(self) -> None:
        """Cut all that are left."""
        if self._engine is not None:
            for conversation in list(self._engine.conversations.values()):
                conversation.wire.abort()
