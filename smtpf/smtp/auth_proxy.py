"""AUTH by proxy: the client's credentials are tried at the host that knows them, and forgotten.

smtpf has no passwords. The route-map says which host authenticates a user; what that host answers to AUTH decides.
Credentials leave this machine only inside TLS. Source: RFC 4616, spec chapters session, 3.4 (steps 7 to 9), and maps, 23.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from smtpf.maps.routes import Route, RouteMap
from smtpf.smtp import options
from smtpf.smtp.client import HopFailure, HopReply
from smtpf.smtp.forward import ForwardConnection, Forwarder
from smtpf.smtp.kept import Reached

if TYPE_CHECKING:
    from smtpf.maps.hosts import Host
    from smtpf.smtp.session import Session


@attrs.frozen
class Authenticated:
    """The outcome of an AUTH."""

    accepted: bool
    """The client is authenticated. A relay always is: its AUTH may be meant for the final mail server."""
    kept: ForwardConnection | None = None
    """The connection over which all mail of this session is to go, when the host was one of the local route's."""


REFUSED = Authenticated(False)


class AuthProxy:
    """Tries credentials at the hosts of the route-map."""

    def __init__(self, routes: RouteMap, forwarder: Forwarder) -> None:
        self._routes = routes
        self._forwarder = forwarder

    async def authenticate(self, session: Session, user: str, password: bytes) -> Authenticated:
        """Try ``user`` (the authentication identity) and ``password``. Neither is logged or kept."""
        otherwise = Authenticated(session.relay)
        route, local = await self._route(session, user)
        if route is None:
            return otherwise
        hosts, keep = (route.rcpt, False) if route.rcpt else (route.forward, local)
        reached = await self._reach(session, hosts)
        if reached is None:
            return otherwise
        if reached.protocol.esmtp and await self._try(session, reached, user, password):
            if keep:
                return Authenticated(True, ForwardConnection.kept(self._forwarder, session, route, reached))
            self._forwarder.release(reached.protocol)
            return Authenticated(True)
        self._forwarder.release(reached.protocol)
        return otherwise

    async def _route(self, session: Session, user: str) -> tuple[Route | None, bool]:
        """The route of ``user``, and whether it is the local route."""
        found = await self._routes.for_auth_id(user)
        if isinstance(found, Route):
            return found, False
        domain = user.rpartition("@")[2] if "@" in user else ""
        if found is not None or (domain and not (session.localhost and domain.lower() == session.interface_name.lower())):
            return None, False
        local = await self._routes.local_route()
        return (local, True) if isinstance(local, Route) else (None, False)

    async def _reach(self, session: Session, hosts: Sequence[Host]) -> Reached | None:
        """The first host that answers and to which a password may be told."""
        for host in hosts:
            reached = await self._forwarder.reach(session.settings, session.interface_name, [host])
            if isinstance(reached, HopFailure):
                continue
            if reached.protocol.tls or reached.host.unix or _is_loopback(reached.protocol.address):
                return reached
            self._forwarder.release(reached.protocol)
        return None

    async def _try(self, session: Session, reached: Reached, user: str, password: bytes) -> bool:
        timeout = session.settings[options.SMTP_COMMAND_TIMEOUT]
        answer = await reached.protocol.auth_plain(_plain(user, password), timeout)
        if answer.code != 235 and isinstance(answer, HopReply) and "@" in user:
            answer = await reached.protocol.auth_plain(_plain(user.rpartition("@")[0], password), timeout)
        return answer.code == 235


def _plain(user: str, password: bytes) -> bytes:
    return base64.b64encode(b"\0" + user.encode("utf-8", "surrogateescape") + b"\0" + password)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
