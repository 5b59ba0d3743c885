"""What the node says of itself: the lines at the start of the log, ``+version`` and ``+info``.

Source: spec chapter operations, 4.6 and 6.2 step 7.
"""

from __future__ import annotations

import platform
import sqlite3
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import smtpf
import twisted
from smtpf.journal.message import info

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal

COPYRIGHT = "Copyright 2026 by the smtpf authors. All rights reserved."


PROGRAM = info(
    604,
    "smtpf %s %s",
    "The first line of a start: the program's version and copyright.",
    fields=("version", "copyright"),
    always=True,
)
LIBRARY = info(
    605,
    "LibSnert %s %s",
    "What the program runs on. The name is kept for scripts that look for it; the arguments tell the library and language in use.",
    fields=("relation", "versions"),
    always=True,
)
DATABASE = info(
    606,
    "SQLite %s Public Domain by D. Richard Hipp",
    "The database engine of cache, statistics and maps.",
    fields=("version",),
    always=True,
)


def announce(journal: Journal) -> None:
    """Write #604, #605 and #606."""
    journal.write(PROGRAM, smtpf.__version__, COPYRIGHT)
    journal.write(LIBRARY, "compatible,", f"Twisted {twisted.__version__} Python {platform.python_version()}")
    journal.write(DATABASE, sqlite3.sqlite_version)


def version_lines() -> list[str]:
    """The lines of ``+version``."""
    return [
        f"smtpf {smtpf.__version__}",
        COPYRIGHT,
        f"Twisted {twisted.__version__}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        ssl.OPENSSL_VERSION,
        f"Built on {built()}",
    ]


def build_values() -> dict[str, str]:
    """Name and value of each line of ``+info`` and of the INFO command."""
    return {
        "SMTPF_NAME": "smtpf",
        "SMTPF_VERSION": smtpf.__version__,
        "SMTPF_BUILT": built(),
        "PYTHON_VERSION": platform.python_version(),
        "TWISTED_VERSION": twisted.__version__,
        "SQLITE3_VERSION": sqlite3.sqlite_version,
        "OPENSSL_VERSION": ssl.OPENSSL_VERSION,
        "PLATFORM": platform.platform(),
    }


def built() -> str:
    """When this installation was made: the date of the package's own file, in UTC."""
    made = datetime.fromtimestamp(Path(smtpf.__file__).stat().st_mtime, UTC)
    return made.strftime("%Y-%m-%d %H:%M:%S UTC")
