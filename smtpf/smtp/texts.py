"""The lines of the welcome file and of the reject file. Source: spec chapter operations, 8.3 and 8.4."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smtpf.journal.message import warn
from smtpf.reply import printable
from smtpf.smtp.engine import Texts
from smtpf.smtp.options import SMTP_REJECT_FILE, SMTP_WELCOME_FILE

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

UNREADABLE = warn(
    1133, 'file "%s" load error: %s (%d)',
    "The welcome or reject file could not be read; the node goes on without it, or with what it had read before.",
    fields=("file", "error", "errno"), since="new",
)  # fmt: skip
MAX_LINE = 400
"""Characters of one line."""
WELCOME = ("Welcome to smtpf", "Mail is filtered while you wait.")


def read_texts(settings: Settings, journal: Journal, before: Texts | None = None) -> Texts:
    """Both files, read once. Blocks for the length of two small files: at start and reload only.

    ``before``: the texts in use, which stay when a file cannot be read.
    """
    before = before or Texts(WELCOME)
    welcome = _lines(settings[SMTP_WELCOME_FILE], journal, before.welcome)
    return Texts(welcome or WELCOME, _lines(settings[SMTP_REJECT_FILE], journal, before.reject))


def _lines(path: str, journal: Journal, before: tuple[str, ...]) -> tuple[str, ...]:
    if not path:
        return ()
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        journal.write(UNREADABLE, path, error.strerror or str(error), error.errno or 0)
        return before
    return tuple(printable(line[:MAX_LINE]) for line in text.splitlines())
