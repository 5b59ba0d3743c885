"""A small web server for those who watch the node: is it alive, is it ready, and what do its counters say.

Only GET and HEAD, only three paths, no bodies, few connections; nothing can be changed through it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.protocols.policies import ThrottlingFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from smtpf.admin.metrics import CONTENT_TYPE
from smtpf.settings.option import OptionError, Text

DEFAULT_HOST = "127.0.0.1"
MOST_CONNECTIONS = 32
TIMEOUT = 30
"""Seconds for a request, and of silence on a kept connection."""


class Listen(Text):
    """Nothing, or an address with port, or a port alone (of 127.0.0.1)."""

    def parse(self, text: str) -> str:
        if text and address_of(text) is None:
            raise OptionError(f"takes a port, or an IP address with port, not {text!r}")
        return text


METRICS_LISTEN = Listen(
    "metrics-listen",
    "",
    "Address and port of a web server with `/healthz`, `/readyz` and `/metrics` (OpenMetrics); a port alone is one of 127.0.0.1. "
    "Whoever can reach it can read the counters. Empty: there is none.",
    choices='[IP:]port; "" = none',
    runtime=False,
    since="new",
    area="admin",
)


def address_of(text: str) -> tuple[str, int] | None:
    """Address and port of a value of ``metrics-listen``; None when it has none."""
    host, mark, port = text.rpartition(":")
    host = (host if mark else DEFAULT_HOST).strip("[]")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        return None


class _Request(Request):
    def gotLength(self, length: int | None) -> None:
        # A body is of no use here, and the server would keep all of it.
        super().gotLength(0)  # type: ignore[no-untyped-call]
        if length != 0:
            self.channel.loseConnection()


class _Page(Resource):
    """One path. ``answer`` gives status, content type and text."""

    isLeaf = True

    def __init__(self, answer: Callable[[], tuple[int, str, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = answer

    def render_GET(self, request: Request) -> bytes:
        status, kind, text = self._answer()
        request.setResponseCode(status)
        request.setHeader("content-type", kind)
        request.setHeader("cache-control", "no-store")
        return text.encode()


class HealthServer:
    """Answers from the start of the node to its end."""

    def __init__(self, reactor: Any, metrics: Callable[[], str], not_ready: Callable[[], str]) -> None:
        """``metrics`` makes the OpenMetrics text; ``not_ready`` tells why the node takes no clients, empty when it does."""
        self._reactor = reactor
        self._not_ready = not_ready
        root = Resource()
        root.putChild(b"healthz", _Page(lambda: (200, "text/plain", "ok\n")))
        root.putChild(b"readyz", _Page(self._ready))
        root.putChild(b"metrics", _Page(lambda: (200, CONTENT_TYPE, metrics())))
        site = Site(root, requestFactory=_Request, timeout=TIMEOUT)
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        self.site = site
        self._port: Any = None

    def listen(self, text: str) -> None:
        """Listen where ``metrics-listen`` says. Raises OSError."""
        where = address_of(text)
        assert where is not None
        limited = ThrottlingFactory(self.site, MOST_CONNECTIONS)
        limited.noisy = False
        try:
            self._port = self._reactor.listenTCP(where[1], limited, interface=where[0])
        except CannotListenError as error:
            inner = error.socketError
            raise inner if isinstance(inner, OSError) else OSError(0, str(inner)) from error

    async def close(self) -> None:
        if self._port is not None:
            await self._port.stopListening()
            self._port = None

    def _ready(self) -> tuple[int, str, str]:
        reason = self._not_ready()
        return (503, "text/plain", f"{reason}\n") if reason else (200, "text/plain", "ready\n")
