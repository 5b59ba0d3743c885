"""Names of cluster members, looked up by the node's resolver."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtpf.dns.answer import Answer
    from smtpf.dns.resolver import Resolver

LEAST_TTL = 60
"""Seconds that addresses count when the DNS does not say, such as those of the hosts file."""


class ResolverNames:
    """``peers.Names`` over a resolver: literals and the hosts file first, then the DNS."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def addresses(self, host: str) -> tuple[Sequence[str], int]:
        """Addresses of ``host`` and the seconds for which they hold. Raises OSError."""
        found = await self._resolver.host_addresses(host)
        if not found.addresses:
            raise _error(host, found.error)
        answers = await self._resolver.lookup_all(((host, "A"), (host, "AAAA")))
        return found.addresses, min((answer.ttl for answer in answers if answer.ok), default=LEAST_TTL)

    async def mail_exchangers(self, domain: str) -> tuple[Sequence[str], int]:
        """MX hosts of ``domain`` and the seconds for which they hold. Raises OSError."""
        answer = await self._resolver.lookup(domain, "MX")
        if not answer.ok:
            raise _error(domain, answer if answer.failed else None)
        return tuple(each.host for each in answer.exchanges), answer.ttl


def _error(name: str, failed: Answer | None) -> OSError:
    if failed is None:
        return OSError(errno.ENOENT, f"{name}: no such name")
    return OSError(failed.errno or errno.EAGAIN, f"{name}: {failed.error_text}" if failed.errno else f"{name}: {os.strerror(errno.EAGAIN)}")
