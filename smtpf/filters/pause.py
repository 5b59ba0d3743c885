"""``GreetPause:`` and ``CommandPause:`` let a client wait, and refuse it when it does not.

Software that sends spam seldom waits for the banner or for a reply. An entry takes the place of the short wait that every
unknown client gets before the banner. Known clients are not kept waiting. Source: spec chapters session, 2.5; maps, 17.3.
"""

from __future__ import annotations

from smtpf.maps.access import AccessMap
from smtpf.pipeline import Filter, MaybeVerdict, Verdict
from smtpf.settings.option import Number
from smtpf.smtp.early_talk import BANNER, refusal_in_pause
from smtpf.smtp.session import Session

SMTP_GREET_PAUSE = Number(
    "smtp-greet-pause",
    0,
    "Pause before the banner for clients without a GreetPause: entry.",
    choices="milliseconds, at most 60000; 0 = none",
    least=0,
    area="smtp",
)
SMTP_COMMAND_PAUSE = Number(
    "smtp-command-pause",
    0,
    "Pause before each command for clients without a CommandPause: entry.",
    choices="milliseconds, at most 60000; 0 = none",
    least=0,
    area="smtp",
)
GREET_TAG = "greetpause:"
COMMAND_TAG = "commandpause:"
LONGEST = 60_000
"""Milliseconds."""


class Pause(Filter):
    """Finds the pauses of a client, and keeps the first of them."""

    def __init__(self, access: AccessMap) -> None:
        self._access = access

    def prepare(self, session: Session) -> MaybeVerdict:
        """Look both pauses up."""
        session.greet_pause = session.command_pause = None
        return None if session.known else self._prepare(session)

    async def _prepare(self, session: Session) -> None:
        settings = session.settings
        session.greet_pause = await self._pause(session, GREET_TAG, settings[SMTP_GREET_PAUSE])
        session.command_pause = await self._pause(session, COMMAND_TAG, settings[SMTP_COMMAND_PAUSE])

    async def _pause(self, session: Session, tag: str, default: int) -> int | None:
        """Milliseconds; None when neither map nor option speaks."""
        found = await self._access.lookup_client_number(tag, session.name, session.address, session.sid)
        if found is None:
            found = default or None
        return None if found is None else max(0, min(found, LONGEST))

    def connect(self, session: Session) -> MaybeVerdict:
        """Wait before the banner."""
        return self._wait(session, session.greet_pause) if session.greet_pause and not session.known else None

    async def _wait(self, session: Session, pause: int) -> Verdict | None:
        if not await session.rest(pause / 1000):
            return None
        return refusal_in_pause(session, BANNER, pause)
