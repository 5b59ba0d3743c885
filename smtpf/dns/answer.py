"""What a DNS query came to, as a value: status, typed records, and the CNAMEs met on the way.

Every test that looks at the DNS gets one of these; no DNS failure is an exception. Names are lower case without the
final dot; octets that are no printable ASCII stand as ``\\DDD`` (RFC 1035 5.1), so a name is always safe to log.
"""

from __future__ import annotations

import errno
import os
from enum import Enum

import attrs


class Status(Enum):
    """How a query ended. The value is the code name that log messages #435, #446, #468 and #490 show."""

    OK = "OK"
    NODATA = "NODATA"
    """NOERROR, but no record of the type asked for."""
    NXDOMAIN = "NXDOMAIN"
    FORMERR = "FORMAT"
    SERVFAIL = "SERVER"
    NOTIMP = "NOT IMPLEMENTED"
    REFUSED = "REFUSED"
    OTHER = "ERRNO"
    """An rcode above 5, or an answer that makes no sense."""
    TIMEOUT = "TIMED OUT"
    """No server answered in time, or none could be reached."""


RCODES = {1: Status.FORMERR, 2: Status.SERVFAIL, 3: Status.NXDOMAIN, 4: Status.NOTIMP, 5: Status.REFUSED}


@attrs.frozen
class Mx:
    """A mail exchange (RFC 1035 3.3.9)."""

    preference: int
    host: str
    """Empty for the null MX (RFC 7505)."""
    original: str = attrs.field(default="", eq=False)
    """As the server wrote it: case kept, with final dot."""


@attrs.frozen
class Target:
    """The name that a PTR, NS or CNAME points to."""

    name: str
    original: str = attrs.field(default="", eq=False)
    """As the server wrote it: case kept, with final dot."""


@attrs.frozen
class Txt:
    """A text record: its character strings joined, as octets (RFC 7208 3.3)."""

    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode("latin-1")


@attrs.frozen
class Soa:
    """Start of authority (RFC 1035 3.3.13). Times in seconds."""

    owner: str
    primary: str
    mailbox: str
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int


Record = str | Mx | Target | Txt | Soa
"""A and AAAA records are their address as text; IPv6 in the form of RFC 5952."""


@attrs.frozen
class Answer:
    """The outcome of one query."""

    name: str
    """The name asked for, lower case, without final dot."""
    type: str
    """``A``, ``AAAA``, ``MX``, ``PTR``, ``NS``, ``CNAME``, ``TXT`` or ``SOA``."""
    status: Status
    records: tuple[Record, ...] = ()
    """Those of the type asked for, at the end of the CNAME chain, in the server's order."""
    chain: tuple[Target, ...] = ()
    """CNAME targets in the order followed."""
    authority: Soa | None = None
    """The SOA of a negative answer's authority section, if any."""
    ttl: int = 0
    """Seconds for which the answer holds."""
    rcode: int = 0
    errno: int = 0
    """When no server answered: why (``ETIMEDOUT``, ``ECONNREFUSED``); else 0."""

    @property
    def ok(self) -> bool:
        """There is at least one record of the type asked for."""
        return self.status is Status.OK

    @property
    def answered(self) -> bool:
        """The question has been settled: NOERROR or NXDOMAIN, as opposed to an error."""
        return self.status in SETTLED

    @property
    def failed(self) -> bool:
        """An error code or no answer; to ask again later may help."""
        return self.status not in SETTLED

    @property
    def no_answer(self) -> bool:
        """No server answered at all."""
        return self.status is Status.TIMEOUT

    @property
    def rcode_text(self) -> str:
        """The code name for log messages, such as ``SERVER`` or ``TIMED OUT``."""
        return self.status.value

    @property
    def error_text(self) -> str:
        """Text for a failure: the system's words when no answer came, else the code name."""
        return os.strerror(self.errno) if self.errno else self.status.value

    @property
    def canonical(self) -> str:
        """The name at the end of the CNAME chain."""
        return self.chain[-1].name if self.chain else self.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Records of an A or AAAA answer."""
        return tuple(record for record in self.records if isinstance(record, str))

    @property
    def names(self) -> tuple[str, ...]:
        """Names that the PTR, NS or CNAME records point to."""
        return tuple(record.name for record in self.records if isinstance(record, Target))

    @property
    def exchanges(self) -> tuple[Mx, ...]:
        """Records of an MX answer, in the server's order."""
        return tuple(record for record in self.records if isinstance(record, Mx))

    @property
    def texts(self) -> tuple[bytes, ...]:
        """Records of a TXT answer."""
        return tuple(record.data for record in self.records if isinstance(record, Txt))

    @property
    def soa(self) -> Soa | None:
        """The SOA record of an SOA answer."""
        return next((record for record in self.records if isinstance(record, Soa)), None)


SETTLED = frozenset({Status.OK, Status.NODATA, Status.NXDOMAIN})


def timed_out(name: str, rtype: str, error: int = errno.ETIMEDOUT) -> Answer:
    """The answer when no server gave one."""
    return Answer(name, rtype, Status.TIMEOUT, errno=error)


@attrs.frozen
class HostAddresses:
    """Addresses of a host name, A and AAAA together."""

    name: str
    addresses: tuple[str, ...] = ()
    """IPv4 first, each family in the server's order."""
    exists: bool = True
    """False: NXDOMAIN."""
    failed: bool = False
    """The A or the AAAA query failed (neither NOERROR nor NXDOMAIN)."""
    error: Answer | None = None
    """The first failed query."""
