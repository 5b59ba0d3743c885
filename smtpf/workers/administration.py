"""The administration commands in a worker: given on the SMTP port there, carried out by the coordinator. Source: operations, 4."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from smtpf.admin.asker import Asker
from smtpf.admin.commands import VERBS, end_own_session, guarded, note
from smtpf.reply import Answer

if TYPE_CHECKING:
    from smtpf.smtp.engine import Command, Engine
    from smtpf.workers.channel import Channel


class RemoteAdministration:
    """Passes commands on over ``channel``."""

    def __init__(self, engine: Engine, channel: Channel) -> None:
        self._engine = engine
        self._channel = channel

    def for_smtp(self) -> dict[str, Command]:
        """The commands by verb, each behind the question of rights."""
        return {verb: guarded(verb, partial(self._pass_on, verb)) for verb in VERBS}

    async def _pass_on(self, verb: str, asker: Asker, argument: str, line: str) -> Answer | None:
        if verb == "KILL" and argument == asker.sid:
            note(self._engine, asker, line)
            await end_own_session(asker)
            return None
        lines, number = await self._channel.call("admin", asker.sid, line)
        # What OPTN and VERB have changed has come before the answer.
        asker.adopt(self._engine.settings.current)
        return Answer(tuple(lines), number)
