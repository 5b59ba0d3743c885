"""Who has given an administration command: a session on the SMTP port, or somebody at the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from smtpf.settings.store import Settings
    from smtpf.smtp.conversation import Conversation


@attrs.frozen
class Asker:
    """``sid`` is the session id that log lines and replies carry. ``conversation`` None: the control socket."""

    sid: str
    conversation: Conversation | None = None

    def adopt(self, settings: Settings) -> None:
        """Let the session that changed the options go on with them; all others keep those they began with."""
        if self.conversation is not None:
            self.conversation.session.settings = settings
