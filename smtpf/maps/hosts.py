"""Hosts as they are written in maps: names, addresses, literals with ports, UNIX sockets.

Source: spec chapter maps, sections 2 and 18.
"""

from __future__ import annotations

import re

import attrs

from smtpf.maps import keys

SMTP_PORT = 25

_SEPARATORS = re.compile(r"[, \t]+")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_NAME = re.compile(r"[^\[\]:/\s\x00-\x1f\x7f]{1,255}")


@attrs.frozen
class Host:
    """One next hop of a list."""

    text: str
    """As it is written in the map."""
    host: str
    """Name or address without brackets; empty for a UNIX socket."""
    port: int = SMTP_PORT
    is_literal: bool = False
    """``host`` is an IP address."""
    unix: str = ""
    """Path of a UNIX socket."""
    tls: str = ""
    """What its route demands of the connection: ``require``, ``verify`` or nothing."""

    def __str__(self) -> str:
        if self.unix:
            return self.unix
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_hosts(text: str) -> tuple[Host, ...]:
    """The hosts of a list, separated by commas, blanks or TABs."""
    parsed = (parse_host(written) for written in _SEPARATORS.split(text) if written)
    return tuple(host for host in parsed if host is not None)


def parse_host(text: str, port: int = SMTP_PORT) -> Host | None:
    """``name``, ``192.0.2.1`` or ``[literal]`` with an optional ``:port``; IPv6 without port; ``/unix/socket``. None: neither."""
    if text.startswith("/"):
        return Host(text, "", 0, unix=text)
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        address = keys.parse_address(inside)
        if not bracket or address is None:
            return None
        found = _port(rest, port)
        return None if found is None else Host(text, str(address), found, is_literal=True)
    if text.count(":") > 1:
        address = keys.parse_address(text)
        return None if address is None else Host(text, str(address), port, is_literal=True)
    name, colon, rest = text.partition(":")
    found = _port(colon + rest, port)
    if found is None or not _NAME.fullmatch(name):
        return None
    return Host(text, name, found, is_literal=keys.parse_address(name) is not None)


def _port(text: str, default: int) -> int | None:
    if not text:
        return default
    if not _PORT.fullmatch(text[1:]) or text[0] != ":":
        return None
    number = int(text[1:])
    return number if 0 < number < 65536 else None
