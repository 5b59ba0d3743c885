"""Who may use the administration commands on the SMTP port; the commands themselves are a floor higher, in ``admin``.

Rights come from the connection as it was accepted: neither XCLIENT nor a PROXY header gives any. Source: spec chapter
operations, 4.1.
"""

from __future__ import annotations

from smtpf.settings.option import Text
from smtpf.smtp.session import Session

ADMIN_COMMANDS = Text(
    "admin-commands",
    "localhost",
    "Who may look into the running node and change it: `localhost` everybody on this machine, over the SMTP port and the control socket; "
    "`socket` those who may open the control socket; `none` nobody.",
    choices="localhost|socket|none",
    words=("localhost", "socket", "none"),
    runtime=False,
    since="new",
    area="admin",
)


def may_administer(session: Session) -> bool:
    """Whether the client of ``session`` may use the commands: both ends of its connection are this machine's loopback."""
    return session.really_local and session.settings[ADMIN_COMMANDS] == "localhost"
