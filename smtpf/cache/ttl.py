"""How long a record lives, by the result code in its value. Source: spec chapter operations, 1.1 and 1.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpf.settings.option import Number

if TYPE_CHECKING:
    from smtpf.settings.store import Settings

CACHE_ACCEPT_TTL = Number(
    "cache-accept-ttl",
    604800,
    "How long a good result is remembered, such as a recipient known to exist or a sender that came back after grey-listing.",
    choices="seconds",
    least=0,
    area="cache",
)
CACHE_REJECT_TTL = Number(
    "cache-reject-ttl",
    604800,
    "How long a refusal is remembered, such as a recipient known not to exist.",
    choices="seconds",
    least=0,
    area="cache",
)
CACHE_TEMP_FAIL_TTL = Number(
    "cache-temp-fail-ttl",
    7200,
    "How long a temporary failure is remembered. Keep it short: the cause may be gone in a minute.",
    choices="seconds",
    least=0,
    area="cache",
)


def ttl_for(code: str | int, settings: Settings) -> int:
    """Seconds of life for a value that starts with ``code``."""
    digit = str(int(code)) if isinstance(code, int) else code[:1]
    if digit == "4":
        return settings[CACHE_TEMP_FAIL_TTL]
    if digit == "5":
        return settings[CACHE_REJECT_TTL]
    return settings[CACHE_ACCEPT_TTL]
