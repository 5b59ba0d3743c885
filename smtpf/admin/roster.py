"""The sessions of a node, for CONN, KILL and STAT: those of this process, or of several. Source: spec chapter operations, 4.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtpf.pipeline import reject
from smtpf.reply import Reply

if TYPE_CHECKING:
    from smtpf.smtp.engine import Engine

KILLED = Reply(325, "550 5.0.0 session %s killed", meaning="The postmaster cut this session with KILL.")


class Roster(Protocol):
    """All sessions of the node."""

    def __len__(self) -> int:
        """How many there are now."""

    async def listing(self) -> tuple[int, list[str]]:
        """Threads in use, and a line of CONN for each session."""

    async def kill(self, sid: str) -> bool:
        """Cut a session. False: there is none of this id."""

    async def bring_up_to_date(self) -> None:
        """Let the statistics count all that has happened, and every process of the node know what has been changed."""


class OwnSessions:
    """The sessions of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return len(self._engine.conversations)

    async def listing(self) -> tuple[int, list[str]]:
        engine = self._engine
        now = engine.reactor.seconds()
        lines = []
        for sid, each in engine.conversations.items():
            session = each.session
            age, silent = max(0, int(now - session.started)), max(0, int(now - each.last_input))
            lines.append(f"{sid} {session.state} {session.name} [{session.address}] {age} {silent} {session.octets}")
        return engine.workers, lines

    async def kill(self, sid: str) -> bool:
        victim = self._engine.conversations.get(sid)
        if victim is None:
            return False
        victim.kill(reject(KILLED, sid))
        return True

    async def bring_up_to_date(self) -> None:
        """They are."""
