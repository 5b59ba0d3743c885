"""What options mean together: values that follow from more than one option.

Pure arithmetic, done again after each change of options by the part that uses the value.
Source: spec chapter options, sections 4 and 8; chapter operations, 6.3.
"""

from __future__ import annotations

DESCRIPTORS_PER_SESSION = 8
DESCRIPTORS_KEPT_FREE = 1024
DESCRIPTOR_STEP = 1024


def black_listed_timeout(command_timeout: int, black_timeout: int) -> int:
    """Seconds to wait for a command of a black-listed client: never more than other clients get.

    ``command_timeout`` and ``black_timeout`` are ``smtp-command-timeout`` and ``smtp-command-timeout-black``.
    """
    return black_timeout if 0 <= black_timeout <= command_timeout else command_timeout


def session_limit(max_threads: int, *, test_mode: bool) -> int:
    """Most sessions at a time, from ``server-max-threads``; 0 means no limit."""
    return max_threads if max_threads > 0 else int(test_mode)


def descriptor_limit(open_file_limit: int, max_threads: int) -> int:
    """``run-open-file-limit``, or what ``server-max-threads`` needs when that is more (#738)."""
    if max_threads <= 0 or open_file_limit >= DESCRIPTORS_PER_SESSION * max_threads:
        return open_file_limit
    wanted = DESCRIPTORS_PER_SESSION * max_threads + DESCRIPTORS_KEPT_FREE
    return wanted - wanted % DESCRIPTOR_STEP
