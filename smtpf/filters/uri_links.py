"""Follow the redirections of a link to the host at its end. Off by default, for it tells the sender that a message is being read.

A HEAD request goes to the link's host without query string, cookies or credentials, and no body is ever read. Links are a stranger's
words, so only public addresses and the ports of the web are contacted: names are resolved first, and the connection goes to the
address that was judged. Source: spec chapter filters-content, 13.6; RFC 9110.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from smtpf.dns.classes import is_unreachable
from smtpf.dns.domains import is_address
from smtpf.message.uri import Uri
from smtpf.settings.option import Number, Policy
from smtpf.smtp.session import Session
from smtpf.smtp.tls import OpportunisticClient

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

URI_LINKS_POLICY = Policy(
    "uri-links-policy",
    "none",
    "Follow links to the host at their end, test that too, and do this with messages whose links lead in a circle.",
    area="uri",
)
HTTP_TIMEOUT = Number("http-timeout", 60, "Longest wait of one web request that follows a link.", choices="seconds", least=1, area="uri")

MAX_REDIRECTS = 5
MAX_SECONDS = 10.0
"""For one link with all its redirections."""
MAX_RESPONSE = 16 * 1024
"""Octets of a response's header."""
MAX_TARGET = 2000
"""Characters of a request's target."""
MAX_AT_ONCE = 20
"""Links of the whole node that are followed at the same time."""
PORTS = frozenset({80, 443, 8080})

CONNECT_ERROR = "socket connect error"
READ_ERROR = "socket read error"
PARSE_ERROR = "HTTP response parse error"
LOOP = "HTTP redirection loop"
NO_LOCATION = "no Location given"
NO_ORIGIN = "no HTTP origin"
NOT_HTTP = "not an http: URI"
UNKNOWN_PORT = "unknown port"

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")
_LOCATION = re.compile(rb"^Location:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEADER_END = re.compile(rb"\r?\n\r?\n")


@attrs.frozen
class Origin:
    """Where a link ends."""

    host: str = ""
    error: str = ""
    """Why there is no origin."""


@attrs.frozen
class _Response:
    status: int
    location: str = ""


class _Head(Protocol):
    """One request. ``answer`` fires with the response or with an error text."""

    def __init__(self, request: bytes, answer: Deferred[_Response | str]) -> None:
        self._request = request
        self._answer = answer
        self._heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data[: MAX_RESPONSE + 1 - len(self._heard)]
        if _HEADER_END.search(self._heard) or len(self._heard) > MAX_RESPONSE:
            self._end(_read(self._heard))

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._end(_read(self._heard) if self._heard else READ_ERROR)

    def _end(self, result: _Response | str) -> None:
        if self._answer.called:
            return
        self._answer.callback(result)
        self.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


def _read(heard: bytes) -> _Response | str:
    status = _STATUS.match(heard)
    if status is None:
        return PARSE_ERROR
    location = _LOCATION.search(heard)
    return _Response(int(status[1]), location[1].decode("latin-1") if location else "")


class _Attempt(ClientFactory):
    noisy = False

    def __init__(self, request: bytes) -> None:
        self.answer: Deferred[_Response | str] = Deferred()
        self._request = request
        self.made: _Head | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        self.made = _Head(self._request, self.answer)
        return self.made

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if not self.answer.called:
            self.answer.callback(CONNECT_ERROR)


class Links:
    """Follows links, for all sessions of the node."""

    def __init__(self, reactor: Any, resolver: Resolver) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._room = DeferredSemaphore(MAX_AT_ONCE)
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_verify(SSL.VERIFY_NONE)

    async def origin(self, session: Session, uri: Uri) -> Origin:
        """The host at the end of ``uri``; only http and https are followed."""
        if uri.scheme not in ("http", "https"):
            return Origin(error=NOT_HTTP)
        await self._room.acquire()
        try:
            return await self._follow(session, uri)
        finally:
            self._room.release()

    async def _follow(self, session: Session, uri: Uri) -> Origin:
        end = self._reactor.seconds() + MAX_SECONDS
        default = 443 if uri.scheme == "https" else 80
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        port = "" if uri.port == default else f":{uri.port}"
        url = f"{uri.scheme}://{host}{port}{_target(uri.path or '/')}"
        seen = {url.lower()}
        for _ in range(MAX_REDIRECTS + 1):
            left = end - self._reactor.seconds()
            if left <= 0:
                return Origin(error=READ_ERROR)
            response = await self._ask(session, url, min(left, session.settings[HTTP_TIMEOUT]))
            if isinstance(response, str):
                return Origin(error=response)
            if 200 <= response.status < 300:
                return Origin(urlsplit(url).hostname or "")
            if not 300 <= response.status < 400:
                return Origin(error=NO_ORIGIN)
            if not response.location:
                return Origin(error=NO_LOCATION)
            following = _joined(url, response.location)
            if following is None:
                return Origin(error=NOT_HTTP)
            if following.lower() in seen:
                return Origin(error=LOOP)
            seen.add(following.lower())
            url = following
        return Origin(error=NO_ORIGIN)

    async def _ask(self, session: Session, url: str, timeout: float) -> _Response | str:
        parts = urlsplit(url)
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        if port not in PORTS:
            return UNKNOWN_PORT
        begun = self._reactor.seconds()
        address = await self._address(session, host, timeout)
        if not address:
            return CONNECT_ERROR
        request = (
            f"HEAD {_target(parts.path or '/')}{'?' + _target(parts.query) if parts.query else ''} HTTP/1.1\r\n"
            f"Host: {parts.netloc.rpartition('@')[2]}\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode("ascii", "replace")
        attempt = _Attempt(request)
        factory: Any = attempt
        if secure:
            creator = OpportunisticClient(self._context, "" if is_address(host) else host)
            factory = TLSMemoryBIOFactory(creator, True, attempt)
        left = max(0.1, timeout - (self._reactor.seconds() - begun))
        connector = self._reactor.connectTCP(address, port, factory, timeout=left)
        late = self._reactor.callLater(left, self._too_late, attempt, connector)
        try:
            return await attempt.answer
        finally:
            if late.active():
                late.cancel()

    def _too_late(self, attempt: _Attempt, connector: Any) -> None:
        if not attempt.answer.called:
            made = attempt.made
            attempt.answer.callback(READ_ERROR if made is not None else CONNECT_ERROR)
            if made is not None:
                made.abort()
            else:
                connector.stopConnecting()

    async def _address(self, session: Session, host: str, timeout: float) -> str:
        """An address of ``host`` that may be contacted, empty when there is none. One inside makes the host suspect as a whole."""
        if is_address(host):
            addresses: tuple[str, ...] = (host.strip("[]"),)
        else:
            addresses = (await self._resolver.addresses(host, timeout)).addresses
        if any(is_unreachable(each) or each == session.interface_address for each in addresses):
            return ""
        return addresses[0] if addresses else ""


def _joined(url: str, location: str) -> str | None:
    """The URL that a redirection leads to; None when it is not to be followed."""
    try:
        parts = urlsplit(urljoin(url, location[:MAX_TARGET]))
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    try:
        plain = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    where = f"[{plain}]" if ":" in plain else plain
    query = f"?{_target(parts.query)}" if parts.query else ""
    return f"{parts.scheme}://{where}{f':{port}' if port else ''}{_target(parts.path or '/')}{query}"


def _target(text: str) -> str:
    return quote(text[:MAX_TARGET], safe="/%:@!$&'()*+,;=~-._?")
