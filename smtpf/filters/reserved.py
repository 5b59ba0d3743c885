"""The two options about names that cannot be real: reserved domains, and top-level domains that do not exist.

The access test and the HELO tests read them. Source: RFC 2606, RFC 6761; spec chapter filters-envelope, 8.
"""

from __future__ import annotations

from smtpf.settings.option import Flag

RFC2606_SPECIAL_DOMAINS = Flag(
    "rfc2606-special-domains",
    True,
    "Refuse client names, HELO names and addresses in reserved domains such as .test, .example, .invalid and .localhost.",
    area="access",
)
REJECT_UNKNOWN_TLD = Flag(
    "reject-unknown-tld", True, "Refuse client names, senders and recipients whose top-level domain does not exist.", area="access"
)
