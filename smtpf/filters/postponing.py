"""The two options by which a client is judged later: only when it had its chance to authenticate, or when the sender is known.

The tests of the client's name, of its HELO argument and of the links in its name read them. Source: spec chapters
filters-envelope, 1 and 6.3; session, 4.2.
"""

from __future__ import annotations

from smtpf.settings.option import Flag

AUTH_DELAY_CHECKS = Flag(
    "auth-delay-checks",
    False,
    "Judge the client's name and HELO argument only at MAIL, and not at all when the client has authenticated by then.",
    area="smtp-auth",
)
CLIENT_IS_MX = Flag(
    "client-is-mx",
    False,
    "Judge the client's name only when the sender is known, and let it pass when the client is a mail exchange of the sender's domain "
    "or its address passes the domain's SPF policy.",
    area="client",
)
