"""Which DNS servers the node asks: the ``dns-servers`` option, or else those the system is set up with."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from smtpf.settings.option import Flag, Number, OptionError, Words

PORT = 53
MAX_SERVERS = 8
RESOLV_CONF = "/etc/resolv.conf"

Server = tuple[str, int]
"""Address and port."""


class ServerList(Words):
    """A list of DNS servers, each an address or address:port."""

    def parse(self, text: str) -> tuple[str, ...]:
        elements = super().parse(text)
        for element in elements:
            try:
                server(element)
            except ValueError:
                raise OptionError(f"takes IP addresses, each with or without :port, not {element!r}") from None
        if len(elements) > MAX_SERVERS:
            raise OptionError(f"takes {MAX_SERVERS} servers at most")
        return elements


DNS_SERVERS = ServerList(
    "dns-servers",
    (),
    "Recursive DNS servers to ask, each an IP address or address:port ([address]:port for IPv6). Empty: those of /etc/resolv.conf. "
    "A caching resolver on the same machine serves best; most DNS lists refuse to answer the big public resolvers.",
    choices="address or address:port; empty = system",
    runtime=False,
    since="later",
    area="dns",
)
DNS_MAX_TIMEOUT = Number(
    "dns-max-timeout",
    45,
    "The longest wait, in seconds, for the answer to one DNS question, all repetitions and servers together.",
    choices="seconds",
    least=1,
    most=300,
    area="dns",
)
DNS_ROUND_ROBIN = Flag(
    "dns-round-robin",
    False,
    "Ask one DNS server after the other, starting with a different one each time. "
    "When off, all are asked at once and the first good answer counts.",
    area="dns",
)


def server(text: str) -> Server:
    """``address``, ``address:port``, ``[address]`` or ``[address]:port``. Raises ValueError."""
    if text.lower() == "localhost":
        return "127.0.0.1", PORT
    host, port = text, str(PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError(text)
        if rest:
            if rest[0] != ":":
                raise ValueError(text)
            port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if host.lower() == "localhost":
            host = "127.0.0.1"
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(text)
    return str(ipaddress.ip_address(host)), int(port)


def system_servers(path: str = RESOLV_CONF) -> list[Server]:
    """The ``nameserver`` lines of resolv.conf; this machine when there are none."""
    found: list[Server] = []
    try:
        lines = Path(path).read_text("ascii", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append((str(ipaddress.ip_address(words[1])), PORT))
            except ValueError:
                continue
    return found[:MAX_SERVERS] or [("127.0.0.1", PORT)]


def servers(configured: Iterable[str]) -> list[Server]:
    """The value of ``dns-servers`` resolved to what is to be asked."""
    return [server(text) for text in configured] or system_servers()
