"""Tells the service manager how the node is: ``READY=1``, ``RELOADING=1``, ``STOPPING=1``.

The protocol is one datagram to the socket that NOTIFY_SOCKET names (sd_notify(3)). Without the variable nothing happens.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(environment: Mapping[str, str], *states: str) -> bool:
    """Send ``states``. True when the service manager took them; a manager that is gone is no error."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto("\n".join(states).encode(), address)
        except OSError:
            return False
    return True
