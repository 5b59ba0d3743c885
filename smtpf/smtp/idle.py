"""The idle stage: what is asked again of a client between its commands. Source: spec chapter session, 3.1 and 4.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpf.pipeline import Stage, Verdict

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation


async def idle(talk: Conversation) -> Verdict | None:
    """Run the idle stage: a refusal with a reply, or None."""
    verdict = await talk.engine.pipeline.run(Stage.IDLE, talk.session)
    talk.session.slots.immediate = None
    return verdict if verdict.negative and verdict.reply is not None else None
