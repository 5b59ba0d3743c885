"""Which addresses the node listens on: option ``interfaces``, and the names by which the node greets there.

Source: spec chapter session, 1.1.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable

import attrs

SMTP_PORT = 25
NAME_TIMEOUT = 5.0
"""Seconds that the look-up of the name of an own address may take at start."""


_BRACKETED = re.compile(r"\[(?P<host>[^\[\]]*)\](?::(?P<port>.*))?")
_PLAIN = re.compile(r"(?P<host>[^:\[\]]+)(?::(?P<port>.*))?")


@attrs.frozen
class Interface:
    """One item of ``interfaces``: as written, and what it means."""

    text: str
    host: str
    port: int


def parse_interface(text: str) -> Interface | None:
    """The meaning of one item, or None when it has none: ``192.0.2.1``, ``[2001:db8::1]:25``, ``2001:db8::1``, ``mx.example.net:2525``."""
    try:
        return Interface(text, str(ipaddress.IPv6Address(text)), SMTP_PORT)
    except ValueError:
        pass
    match = _BRACKETED.fullmatch(text) or _PLAIN.fullmatch(text)
    if match is None:
        return None
    host, port = match["host"], match["port"]
    if port is None:
        return Interface(text, host, SMTP_PORT) if host else None
    if not (port.isascii() and port.isdigit() and int(port) < 65536 and host):
        return None
    return Interface(text, host, int(port))


def interface_name(
    given: str,
    address: str,
    host_name: str,
    reverse: Callable[[str], str] | None = None,
) -> str:
    """The name for a listening ``address``: ``given`` if any, else the address's own, else (and for a wildcard) ``host_name``."""
    if given:
        return given
    if ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return host_name
    return (reverse or reverse_name)(address) or host_name


def reverse_name(address: str) -> str:
    """The system's name of an own ``address``, empty when there is none or it takes too long. Only for the start: it waits."""
    found: list[str] = []

    def ask() -> None:
        try:
            found.append(socket.gethostbyaddr(address)[0])
        except (OSError, UnicodeError):
            pass

    # A thread that may be left behind: the system's resolver cannot be interrupted.
    asking = threading.Thread(target=ask, daemon=True, name="interface-name")
    asking.start()
    asking.join(NAME_TIMEOUT)
    return found[0].rstrip(".").lower() if found else ""
