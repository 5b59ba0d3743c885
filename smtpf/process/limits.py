"""Descriptor and core limits: raised as far as the options ask and the system allows.

Every session needs up to eight descriptors, which is what the figures come from. Source: spec chapter operations, 6.3, and
options, 4 step 11.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from smtpf.journal.message import warn
from smtpf.settings.process_options import RUN_OPEN_FILE_LIMIT, RUN_SAVE_CORE, SERVER_MAX_THREADS

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

PER_SESSION = 8
"""Descriptors that one session may need."""
STEP = 1024
LEAST = 18
"""A limit up to this is taken for a mistake and not set."""


LIMIT_INCREASED = warn(
    738,
    "%s increased to %ld",
    "The named option was too small for another one and has been raised. Write the new value into the option file.",
    fields=("option", "limit"),
)
LIMIT_NOT_POSSIBLE = warn(
    1131,
    "run-open-file-limit=%ld not possible, using %ld",
    "The system allows fewer descriptors than asked for. Start as root or raise the limit in the service manager (LimitNOFILE).",
    fields=("wanted", "limit"),
    since="new",
)


def wanted_descriptors(limit: int, sessions: int) -> int:
    """``run-open-file-limit``, or more when ``server-max-threads`` sessions need more."""
    if sessions <= 0 or limit >= PER_SESSION * sessions:
        return limit
    return (PER_SESSION * sessions + STEP) // STEP * STEP


def raise_limits(settings: Settings, journal: Journal) -> int:
    """Set descriptor and core limits. The effective limit of descriptors, for the guard at accept."""
    asked = settings[RUN_OPEN_FILE_LIMIT]
    wanted = wanted_descriptors(asked, settings[SERVER_MAX_THREADS])
    if wanted != asked:
        journal.write(LIMIT_INCREASED, RUN_OPEN_FILE_LIMIT.name, wanted)
    if wanted > LEAST:
        _set_descriptors(wanted)
    effective = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if effective == resource.RLIM_INFINITY:
        effective = wanted
    if effective < wanted:
        journal.write(LIMIT_NOT_POSSIBLE, wanted, effective)
    _set_core(settings[RUN_SAVE_CORE])
    return effective


def _set_descriptors(wanted: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = hard == resource.RLIM_INFINITY or hard >= wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard if enough else wanted))
    except (OSError, ValueError):
        # Only root raises the hard limit; then the hard limit is what there is.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _set_core(keep: bool) -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard if keep else 0, hard))
