"""The system's hosts file, for next hops only: routes may name hosts that no DNS knows."""

from __future__ import annotations

import ipaddress
from pathlib import Path

HOSTS_FILE = "/etc/hosts"
MAX_OCTETS = 1_000_000
LOCALHOST = ("127.0.0.1", "::1")


class HostsFile:
    """Addresses by name, read once. ``localhost`` is always known (RFC 6761 6.3)."""

    def __init__(self, path: str = HOSTS_FILE) -> None:
        self._addresses: dict[str, tuple[str, ...]] = {"localhost": LOCALHOST}
        try:
            with Path(path).open("rb") as source:
                text = source.read(MAX_OCTETS).decode("ascii", "replace")
        except OSError:
            text = ""
        found: dict[str, list[str]] = {}
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if len(words) < 2:
                continue
            try:
                address = str(ipaddress.ip_address(words[0].partition("%")[0]))
            except ValueError:
                continue
            for name in words[1:]:
                known = found.setdefault(name.lower().rstrip("."), [])
                if address not in known:
                    known.append(address)
        for name, addresses in found.items():
            self._addresses[name] = tuple(sorted(addresses, key=lambda address: ":" in address))

    def addresses(self, name: str) -> tuple[str, ...]:
        """Addresses of ``name``, IPv4 first; empty when the file does not name it."""
        return self._addresses.get(name.lower().rstrip("."), ())
